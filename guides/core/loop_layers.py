"""Parts of the loops of `guides.core.chain`: layers and draws, frame by frame, and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Draws", "Layers", "affine", "before", "draw_adjoint", "over_frames", "times"]


class Layers:
    """Affine maps followed by tanh, run frame by frame without a graph, and their adjoint.

    Args:
        weights: the weights of each layer, (out, in), or (B, out, in) where each sequence has its own.
        biases: the bias of each layer, (out,) or (B, out), or (T, B, out) if it varies over frames.
        shape: (T, B).
        open_end: whether the last layer has no tanh.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], shape: tuple[int, int], *, open_end: bool
    ) -> None:
        self.weights, self.biases, self.shape, self.open_end = weights, biases, shape, open_end
        self.transposed = [w.mT for w in weights]
        self.outs = [w.new_empty(*shape, w.shape[-2]) for w in weights]

    def forward(self, t: int, h: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for i, (weight, bias, out) in enumerate(zip(self.transposed, self.biases, self.outs, strict=True)):
            h = affine(bias[t] if bias.dim() == 3 else bias, h, weight, out[t])
            if i < last or not self.open_end:
                h.tanh_()
        return h

    def prepare(self) -> None:
        """Compute the slopes of every tanh and allocate buffers for gradients; once, before the adjoint."""
        self.slopes = [1.0 - out.square() for out in self.outs]
        self.deltas = [w.new_empty(*self.shape, w.shape[-2]) for w in self.weights]

    def adjoint(self, t: int, gradient: Tensor) -> Tensor:
        """From the gradient with respect to a frame's outputs to that with respect to its inputs."""
        for i in range(len(self.weights) - 1, -1, -1):
            delta = self.deltas[i][t]
            if i < len(self.slopes):
                torch.mul(gradient, self.slopes[i][t], out=delta)
            else:
                delta.copy_(gradient)
            gradient = times(delta, self.weights[i])
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


def times(h: Tensor, weight: Tensor) -> Tensor:
    """h W, (B, in), with one W (out, in) or one for each of the B sequences."""
    return h @ weight if weight.dim() == 2 else torch.bmm(h[:, None], weight)[:, 0]


def over_frames(delta: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `weight` from those of its outputs and its inputs, (T, B, out) and (T, B, in)."""
    if weight.dim() == 2:
        return delta.flatten(0, 1).t() @ inputs.flatten(0, 1)
    return torch.bmm(delta.permute(1, 2, 0), inputs.transpose(0, 1))


def before(z: Tensor) -> Tensor:
    """z_{t-1} of every frame, zero at the first."""
    return torch.cat([z.new_zeros(1, *z.shape[1:]), z[:-1]])


class Draws:
    """Draws of z_t from its parameters, mean + spread with spread = exp(log-variance / 2) epsilon."""

    def __init__(self, noise: Tensor) -> None:
        self.noise, self.latent = noise, noise.shape[-1]
        self.z, self.spread = torch.empty_like(noise), torch.empty_like(noise)

    def forward(self, t: int, parameters: Tensor) -> Tensor:
        mean, log_variance = parameters[:, : self.latent], parameters[:, self.latent :]
        spread = torch.mul(log_variance, 0.5, out=self.spread[t]).exp_().mul_(self.noise[t])
        return torch.add(mean, spread, out=self.z[t])


def draw_adjoint(d_z: Tensor, spread: Tensor, d_parameters: Tensor) -> Tensor:
    """The gradient of a frame's mean and log-variance, from that of z_t and their direct gradient."""
    return torch.cat([d_z, 0.5 * d_z * spread], dim=-1).add_(d_parameters)
