"""Parts of the loops of `guides.core.chain`: layers and draws, frame by frame, and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Draws", "Layers", "affine", "before", "doubled", "over_frames", "times"]


class Layers:
    """Affine maps followed by tanh, run frame by frame without a graph, and their adjoint.

    Each operation of a frame launches a kernel, so what can be computed for all frames at once is outside the loop.

    Args:
        weights: the weights of each layer, (out, in), or (B, out, in) where each sequence has its own.
        biases: the bias of each layer, (out,) or (B, out), or (T, B, out) if it varies over frames.
        shape: (T, B).
        open_end: whether the last layer has no tanh: its outputs are mean and log-variance (in the loop half of it).
        from_z: whether the first layer's input is z.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        shape: tuple[int, int],
        *,
        open_end: bool,
        from_z: bool,
    ) -> None:
        self.weights, self.biases, self.shape, self.open_end = weights, biases, shape, open_end
        self.run_weights, self.run_biases = [*weights], [*biases]
        if open_end:
            latent = weights[-1].shape[-2] // 2
            self.halves = torch.cat([weights[-1].new_ones(latent), weights[-1].new_full((latent,), 0.5)])
            self.run_weights[-1] = weights[-1] * self.halves[:, None]
            self.run_biases[-1] = biases[-1] * self.halves
        self.transposed = [w.mT for w in self.run_weights]
        self.back = [doubled(w) if from_z and i == 0 else w for i, w in enumerate(weights)]
        self.outs = [w.new_empty(*shape, w.shape[-2]) for w in weights]
        self.fused: Tensor | None = None
        """All outputs, (T, B, sum of widths), of one kernel for all frames (`guides.core.fused_loop`)."""

    def forward(self, t: int, h: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for i, (weight, bias, out) in enumerate(zip(self.transposed, self.run_biases, self.outs, strict=True)):
            h = affine(bias[t] if bias.dim() == 3 else bias, h, weight, out[t])
            if i < last or not self.open_end:
                h.tanh_()
        return h

    def parameters(self) -> Tensor:
        """Mean and log-variance of all frames, (T, B, 2L), which are not kept; called once, after the loop."""
        return self.outs.pop().div_(self.halves)

    def reach(self, draws: Draws, d_z: Tensor, d_parameters: Tensor) -> None:
        """Compute how gradients reach the outputs of an open end, for all frames; called once, before the adjoint.

        z_t = mean + spread_t depends on mean and log-variance by the factors (1, spread_t / 2).

        Args:
            draws: the draws.
            d_z: the direct gradient of z, (T, B, L).
            d_parameters: the direct gradient of mean and log-variance, (T, B, 2L).
        """
        self.factors = torch.cat([torch.ones_like(d_z), 0.5 * draws.sigma * draws.noise], dim=-1)
        self.direct = torch.addcmul(d_parameters, doubled(d_z), self.factors)

    def prepare(self) -> None:
        """Compute the slopes of every tanh and allocate buffers for gradients; called once, before the adjoint."""
        self.slopes = [1.0 - out.square() for out in self.outs]
        self.deltas = [w.new_empty(*self.shape, w.shape[-2]) for w in self.weights]

    def adjoint(self, t: int, gradient: Tensor, onto: Tensor | None = None) -> Tensor:
        """From the gradient with respect to a frame's outputs to that with respect to its inputs, added to `onto`.

        That of z is held twice, [d_z, d_z]: in the outputs of an open end, and in the inputs of a layer `from_z`.
        """
        for i in range(len(self.weights) - 1, -1, -1):
            delta = self.deltas[i][t]
            if i < len(self.slopes):
                torch.mul(gradient, self.slopes[i][t], out=delta)
            else:
                torch.addcmul(self.direct[t], gradient, self.factors[t], out=delta)
            gradient = times(delta, self.back[i], onto if i == 0 else None)
        return gradient

    def gradients(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the weights, each one product over all frames, and of the biases in their shapes."""
        hidden = [inputs, *self.outs]
        weights = [over_frames(d, h, w) for d, h, w in zip(self.deltas, hidden, self.weights, strict=False)]
        over = {1: (0, 1), 2: (0,)}
        return weights, [
            d if bias.dim() == 3 else d.sum(over[bias.dim()]) for d, bias in zip(self.deltas, self.biases, strict=True)
        ]


def affine(bias: Tensor, h: Tensor, transposed: Tensor, out: Tensor) -> Tensor:
    """bias + h W' into `out`, (B, out), with one W' (in, out) or one for each of the B sequences."""
    if transposed.dim() == 2:
        return torch.addmm(bias, h, transposed, out=out)
    torch.baddbmm(bias[:, None], h[:, None], transposed, out=out[:, None])
    return out


def times(h: Tensor, weight: Tensor, onto: Tensor | None = None) -> Tensor:
    """h W, (B, in), with one W (out, in) or one for each of the B sequences; added to `onto`, if there is one."""
    if weight.dim() == 2:
        return h @ weight if onto is None else torch.addmm(onto, h, weight)
    product = torch.bmm(h[:, None], weight)[:, 0]
    return product if onto is None else product + onto


def doubled(v: Tensor) -> Tensor:
    """[v, v], along the last dimension."""
    return torch.cat([v, v], dim=-1)


def over_frames(delta: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `weight` from those of its outputs and its inputs, (T, B, out) and (T, B, in)."""
    if weight.dim() == 2:
        return delta.flatten(0, 1).t() @ inputs.flatten(0, 1)
    return torch.bmm(delta.permute(1, 2, 0), inputs.transpose(0, 1))


def before(z: Tensor) -> Tensor:
    """z_{t-1} of every frame, zero at the first."""
    return torch.cat([z.new_zeros(1, *z.shape[1:]), z[:-1]])


class Draws:
    """Draws of z_t = mean + sigma epsilon from mean and half the log-variance, sigma = exp(log-variance / 2)."""

    def __init__(self, noise: Tensor) -> None:
        self.noise, self.latent = noise, noise.shape[-1]
        self.z, self.sigma = torch.empty_like(noise), torch.empty_like(noise)

    def forward(self, t: int, parameters: Tensor) -> Tensor:
        sigma = torch.exp(parameters[:, self.latent :], out=self.sigma[t])
        return torch.addcmul(parameters[:, : self.latent], sigma, self.noise[t], out=self.z[t])

    def drawn(self) -> Tensor:
        """z of all frames, which is not kept; once, after the loop.

        An output kept for the backward pass outside `save_for_backward` is a reference cycle, and all buffers of the
        loop would stay in memory until Python's garbage collector finds it.
        """
        z = self.z
        del self.z
        return z
