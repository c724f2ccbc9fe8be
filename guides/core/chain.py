r"""Fast loops for guides in which z_t depends on z_{t-1}: the step as a chain of layers.

.. math:: (\mu_t, \ell_t) = \text{affine maps and tanh of } z_{t-1} \text{ and data}, \qquad
    z_t = \mu_t + e^{\ell_t / 2} \odot \epsilon_t,

with, in a `MemoryChain`, an LSTM over earlier z. The data's contribution to a layer does not depend on z, so it is
computed for all frames beforehand. Autograd over such a loop is dominated by thousands of graph nodes; here the forward
loop builds no graph, the backward loop runs the adjoint only, and the gradient of each weight is one product of
matrices over all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.nn.layers import Recurrent

__all__ = ["Chain", "MemoryChain", "lstm_parts"]

Drawn = tuple[Tensor, Tensor, Tensor]


class Chain(NamedTuple):
    """A step z_{t-1} -> (mean, log-variance) of z_t, as layers.

    Attributes:
        injected: c (..., T, N, width), the bias of the layer `weight` plus the contribution of the data.
        before: the layers before that one.
        weight: its weights, (width, in).
        after: the layers after it. The very last layer has no tanh: its output is mean and log-variance.
    """

    injected: Tensor
    before: Sequence[nn.Linear]
    weight: Tensor
    after: Sequence[nn.Linear]

    def run(self, noise: Tensor) -> Drawn:
        """From epsilon (..., T, N, L), z, mean and log-variance, each (..., T, N, L)."""
        weights = [*_weights(self.before), self.weight, *_weights(self.after)]
        biases = [*_biases(self.before), *_biases(self.after)]
        loop: Any = _ChainLoop.apply
        return _drawn(loop, noise, [self.injected], len(self.before), *weights, *biases)


class MemoryChain(NamedTuple):
    """A step z_{t-1}, h_{t-1} -> h_t -> (mean, log-variance) of z_t, h an LSTM of one layer over earlier z.

    Attributes:
        gates: (..., T, N, 4H), both biases of the LSTM plus the contribution of the data to its gates.
        before: the layers from z_{t-1} to the LSTM, each with a tanh.
        weight_in: weights from those to the gates, (4H, in).
        weight_h: weights from h_{t-1} to the gates, (4H, H).
        injected: (..., T, N, width), the bias of the layer after h_t plus the contribution of the data.
        weight: that layer's weights, (width, H).
        after: the layers after it. The very last layer has no tanh: its output is mean and log-variance.
        lag: whether the LSTM is not run at the first frame, where h is zero.
    """

    gates: Tensor
    before: Sequence[nn.Linear]
    weight_in: Tensor
    weight_h: Tensor
    injected: Tensor
    weight: Tensor
    after: Sequence[nn.Linear]
    lag: bool

    def run(self, noise: Tensor) -> Drawn:
        """From epsilon (..., T, N, L), z, mean and log-variance, each (..., T, N, L)."""
        weights = [self.weight_in, self.weight_h, *_weights(self.before), self.weight, *_weights(self.after)]
        biases = [*_biases(self.before), *_biases(self.after)]
        loop: Any = _MemoryLoop.apply
        return _drawn(loop, noise, [self.gates, self.injected], len(self.before), self.lag, *weights, *biases)


def lstm_parts(net: Recurrent) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weights (4H, in), (4H, H) and the sum of both biases of an LSTM; None if it has several layers."""
    if not isinstance(net.net, nn.LSTM) or net.net.num_layers != 1:
        return None
    weight_in, weight_h, bias_in, bias_h = net.net.parameters()
    return weight_in, weight_h, bias_in + bias_h


def _weights(layers: Sequence[nn.Linear]) -> list[Tensor]:
    return [layer.weight for layer in layers]


def _biases(layers: Sequence[nn.Linear]) -> list[Tensor]:
    return [layer.bias for layer in layers]


def _drawn(loop: Any, noise: Tensor, injected: list[Tensor], *rest: Any) -> Drawn:
    """Run a loop with particles folded into sequences: (..., T, N, width) to (T, B, width), and back."""
    frames, sequences, _ = noise.shape[-3:]
    batch = noise.shape[:-3]

    def fold(v: Tensor) -> Tensor:
        frames_first = v.to(noise).expand(*batch, *v.shape[-3:]).movedim(-3, 0)  # loops have no autocast
        return frames_first.reshape(frames, -1, v.shape[-1]).contiguous()

    folded = loop(fold(noise), *(fold(v) for v in injected), *rest)
    z, parameters = (v.reshape(frames, *batch, sequences, -1).movedim(0, -3) for v in folded)
    mean, log_variance = parameters.chunk(2, dim=-1)
    return z, mean, log_variance


class _Layers:
    """Affine maps followed by tanh, run frame by frame without a graph, and their adjoint.

    Args:
        weights: the weights of each layer, (out, in).
        biases: the bias of each layer, (out,), or (T, B, out) if it varies over frames.
        shape: (T, B).
        open_end: whether the last layer has no tanh.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], shape: tuple[int, int], *, open_end: bool
    ) -> None:
        self.weights, self.biases, self.shape, self.open_end = weights, biases, shape, open_end
        self.transposed = [w.t() for w in weights]
        self.outs = [w.new_empty(*shape, len(w)) for w in weights]

    def forward(self, t: int, h: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for i, (weight, bias, out) in enumerate(zip(self.transposed, self.biases, self.outs, strict=True)):
            h = torch.addmm(bias[t] if bias.dim() == 3 else bias, h, weight, out=out[t])
            if i < last or not self.open_end:
                h.tanh_()
        return h

    def prepare(self) -> None:
        """Compute the slopes of every tanh and allocate buffers for gradients; once, before the adjoint."""
        self.slopes = [1.0 - out.square() for out in self.outs]
        self.deltas = [w.new_empty(*self.shape, len(w)) for w in self.weights]

    def adjoint(self, t: int, gradient: Tensor) -> Tensor:
        """From the gradient with respect to a frame's outputs to that with respect to its inputs."""
        for i in range(len(self.weights) - 1, -1, -1):
            delta = self.deltas[i][t]
            if i < len(self.slopes):
                torch.mul(gradient, self.slopes[i][t], out=delta)
            else:
                delta.copy_(gradient)
            gradient = delta @ self.weights[i]
        return gradient

    def gradients(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the weights, each one product over all frames, and of the biases in their shapes."""
        hidden = [inputs, *self.outs]
        weights = [_over_frames(d, h) for d, h in zip(self.deltas, hidden, strict=False)]
        return weights, [
            d if bias.dim() == 3 else d.sum((0, 1)) for d, bias in zip(self.deltas, self.biases, strict=True)
        ]


def _over_frames(delta: Tensor, inputs: Tensor) -> Tensor:
    return delta.flatten(0, 1).t() @ inputs.flatten(0, 1)


def _before(z: Tensor) -> Tensor:
    return torch.cat([z.new_zeros(1, *z.shape[1:]), z[:-1]])


class _Draws:
    """Draws of z_t from its parameters, mean + spread with spread = exp(log-variance / 2) epsilon."""

    def __init__(self, noise: Tensor) -> None:
        self.noise, self.latent = noise, noise.shape[-1]
        self.z, self.spread = torch.empty_like(noise), torch.empty_like(noise)

    def forward(self, t: int, parameters: Tensor) -> Tensor:
        mean, log_variance = parameters[:, : self.latent], parameters[:, self.latent :]
        spread = torch.mul(log_variance, 0.5, out=self.spread[t]).exp_().mul_(self.noise[t])
        return torch.add(mean, spread, out=self.z[t])


def _draw_adjoint(d_z: Tensor, spread: Tensor, d_parameters: Tensor) -> Tensor:
    """The gradient of a frame's mean and log-variance, from that of z_t and their direct gradient."""
    return torch.cat([d_z, 0.5 * d_z * spread], dim=-1).add_(d_parameters)


class _ChainLoop(torch.autograd.Function):
    """From noise (T, B, L), injected (T, B, width), its layer, weights and biases to z (T, B, L), parameters."""

    @staticmethod
    def forward(ctx: Any, noise: Tensor, injected: Tensor, at: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        depth = (len(tensors) + 1) // 2
        biases = [*tensors[depth : depth + at], injected, *tensors[depth + at :]]
        layers = _Layers(tensors[:depth], biases, (noise.shape[0], noise.shape[1]), open_end=True)
        draws = _Draws(noise)
        z = noise.new_zeros(noise.shape[1:])
        for t in range(len(noise)):
            z = draws.forward(t, layers.forward(t, z))
        parameters = layers.outs.pop()
        ctx.layers, ctx.spread, ctx.at = layers, draws.spread, at
        ctx.save_for_backward(draws.z)
        return draws.z, parameters

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_z, d_parameters = grads
        layers: _Layers = ctx.layers
        layers.prepare()
        carried = torch.zeros_like(d_z[0])
        for t in range(len(d_z) - 1, -1, -1):
            carried = layers.adjoint(t, _draw_adjoint(carried.add_(d_z[t]), ctx.spread[t], d_parameters[t]))
        d_weights, d_biases = layers.gradients(_before(*ctx.saved_tensors))
        d_injected = d_biases.pop(ctx.at)
        return None, d_injected, None, *d_weights, *d_biases


class _MemoryLoop(torch.autograd.Function):
    """The same with an LSTM between z_{t-1} and the layers that see h_t; see `MemoryChain`."""

    @staticmethod
    def forward(
        ctx: Any, noise: Tensor, gates: Tensor, injected: Tensor, ahead: int, lag: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        depth = (len(tensors) - 1) // 2 - 1
        weight_in, weight_h, *rest = tensors
        weights, biases = rest[: depth + 1], rest[depth + 1 :]
        frames, batch = noise.shape[:2]
        width = weight_h.shape[1]
        first = _Layers(weights[:ahead], biases[:ahead], (frames, batch), open_end=False)
        last = _Layers(weights[ahead:], [injected, *biases[ahead:]], (frames, batch), open_end=True)
        draws = _Draws(noise)
        active = torch.zeros_like(gates)  # sigmoid or tanh of the gates i, f, g, o
        cells, hidden = (noise.new_zeros(frames + 1, batch, width) for _ in range(2))
        transposed_in, transposed_h = weight_in.t(), weight_h.t()
        for out in first.outs if lag else []:
            out[0] = 0.0
        z = noise.new_zeros(noise.shape[1:])
        for t in range(frames):
            if t > 0 or not lag:
                e = first.forward(t, z)
                a = torch.addmm(gates[t], e, transposed_in, out=active[t]).addmm_(hidden[t], transposed_h)
                i, f, g, o = a.chunk(4, dim=-1)
                a[:, : 2 * width].sigmoid_()
                g.tanh_()
                o.sigmoid_()
                torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
                torch.tanh(cells[t + 1], out=hidden[t + 1]).mul_(o)
            z = draws.forward(t, last.forward(t, hidden[t + 1]))
        parameters = last.outs.pop()
        ctx.first, ctx.last, ctx.spread, ctx.lag = first, last, draws.spread, lag
        ctx.memory = (active, cells, hidden, weight_in, weight_h)
        ctx.save_for_backward(draws.z)
        return draws.z, parameters

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_z, d_parameters = grads
        first, last = ctx.first, ctx.last
        active, cells, hidden, weight_in, weight_h = ctx.memory
        first.prepare()
        last.prepare()
        i, f, g, o = active.chunk(4, dim=-1)
        tanh_c = torch.tanh(cells[1:])
        # what a gradient of h_t or c_t is multiplied by on its way to each gate, for all frames at once
        to_c = o * (1.0 - tanh_c.square())
        to_gates = torch.cat([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g.square())], dim=-1)
        to_o = tanh_c * o * (1 - o)
        d_gates = torch.zeros_like(active)
        width = weight_h.shape[1]
        carried = torch.zeros_like(d_z[0])
        d_h, d_c = (torch.zeros_like(hidden[0]) for _ in range(2))
        for t in range(len(d_z) - 1, -1, -1):
            d_h = d_h + last.adjoint(t, _draw_adjoint(carried.add_(d_z[t]), ctx.spread[t], d_parameters[t]))
            if t == 0 and ctx.lag:
                break
            d_c = torch.addcmul(d_c, d_h, to_c[t])
            torch.mul(d_c.repeat(1, 3), to_gates[t], out=d_gates[t, :, : 3 * width])
            torch.mul(d_h, to_o[t], out=d_gates[t, :, 3 * width :])
            d_c = d_c * f[t]
            d_h = d_gates[t] @ weight_h
            carried = first.adjoint(t, d_gates[t] @ weight_in)
        if ctx.lag:
            for delta in first.deltas:
                delta[0] = 0.0
        z_before = _before(*ctx.saved_tensors)
        e = first.outs[-1] if first.outs else z_before
        weights_1, biases_1 = first.gradients(z_before) if first.outs else ([], [])
        weights_2, (d_injected, *biases_2) = last.gradients(hidden[1:])
        d_in, d_h_weights = _over_frames(d_gates, e), _over_frames(d_gates, hidden[:-1])
        return None, d_gates, d_injected, None, None, d_in, d_h_weights, *weights_1, *weights_2, *biases_1, *biases_2
