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
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from guides.core import fused_loop, fused_memory
from guides.core.loop_layers import Draws, Layers, affine, before, doubled, over_frames, times
from models.nn.layers import Recurrent

__all__ = ["Affine", "Chain", "MemoryChain", "lstm_parts", "shared_chain"]

Drawn = tuple[Tensor, Tensor, Tensor]


class Affine(Protocol):
    """An affine map of a loop, such as `nn.Linear`: weight (out, in) and bias (out,); or separate maps of N sequences,
    (N, out, in) and (N, out).
    """

    @property
    def weight(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor: ...


class Chain(NamedTuple):
    """A step z_{t-1} -> (mean, log-variance) of z_t, as layers.

    Attributes:
        injected: c (..., T, N, width), the bias of the layer `weight` plus the contribution of the data.
        before: the layers before that one.
        weight: its weights, (width, in). All weights may be separate for each sequence, as (N, width, in).
        after: the layers after it. The very last layer has no tanh: its output is mean and log-variance.
    """

    injected: Tensor
    before: Sequence[Affine]
    weight: Tensor
    after: Sequence[Affine]

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
    before: Sequence[Affine]
    weight_in: Tensor
    weight_h: Tensor
    injected: Tensor
    weight: Tensor
    after: Sequence[Affine]
    lag: bool

    def run(self, noise: Tensor) -> Drawn:
        """From epsilon (..., T, N, L), z, mean and log-variance, each (..., T, N, L)."""
        weights = [self.weight_in, self.weight_h, *_weights(self.before), self.weight, *_weights(self.after)]
        biases = [*_biases(self.before), *_biases(self.after)]
        loop: Any = _MemoryLoop.apply
        return _drawn(loop, noise, [self.gates, self.injected], len(self.before), self.lag, *weights, *biases)


def shared_chain(
    net: Recurrent, x: Tensor, before: Sequence[Affine], layers: Sequence[Affine], data: Tensor, *, h_first: bool
) -> MemoryChain | None:
    """The chain of a guide that shares the recurrent network of a model, one frame behind.

    Args:
        net: the network of [x; features of z_{t-1}].
        x: its input from the data, (..., T, N, X).
        before: the layers from z_{t-1} to its features.
        layers: the layers from h_t and `data` to mean and log-variance of z_t.
        data: their input from the data, (..., T, N, D).
        h_first: whether their input is [h; data]; otherwise [data; h].

    Returns:
        The chain; None if the network is not an LSTM of one layer.
    """
    lstm = lstm_parts(net)
    if lstm is None:
        return None
    weight_in, weight_h, bias = lstm
    of_x, of_z = weight_in.tensor_split([x.shape[-1]], dim=1)
    first, *after = layers
    sides = first.weight.tensor_split([net.out_dim if h_first else data.shape[-1]], dim=1)
    of_h, of_data = sides if h_first else sides[::-1]
    return MemoryChain(
        gates=linear(x, of_x, bias),
        before=before,
        weight_in=of_z,
        weight_h=weight_h,
        injected=linear(data, of_data, first.bias),
        weight=of_h,
        after=after,
        lag=True,
    )


def lstm_parts(net: Recurrent) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weights (4H, in), (4H, H) and the sum of both biases of an LSTM; None if it has several layers."""
    if not isinstance(net.net, nn.LSTM) or net.net.num_layers != 1:
        return None
    weight_in, weight_h, bias_in, bias_h = net.net.parameters()
    return weight_in, weight_h, bias_in + bias_h


def _weights(layers: Sequence[Affine]) -> list[Tensor]:
    return [layer.weight for layer in layers]


def _biases(layers: Sequence[Affine]) -> list[Tensor]:
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


class _ChainLoop(torch.autograd.Function):
    """From noise (T, B, L), injected (T, B, width), its layer, weights and biases to z (T, B, L), parameters."""

    @staticmethod
    def forward(ctx: Any, noise: Tensor, injected: Tensor, at: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        depth = (len(tensors) + 1) // 2
        biases = [*tensors[depth : depth + at], injected, *tensors[depth + at :]]
        layers = Layers(tensors[:depth], biases, (noise.shape[0], noise.shape[1]), open_end=True, from_z=True)
        draws = Draws(noise)
        if not fused_loop.forward(layers, draws, at):
            z = noise.new_zeros(noise.shape[1:])
            for t in range(len(noise)):
                z = draws.forward(t, layers.forward(t, z))
        z, parameters = draws.drawn(), layers.parameters()
        ctx.layers, ctx.draws, ctx.at = layers, draws, at
        ctx.save_for_backward(z)
        return z, parameters

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_z, d_parameters = grads
        layers: Layers = ctx.layers
        layers.reach(ctx.draws, d_z, d_parameters)
        if not fused_loop.adjoint(layers):
            layers.prepare()
            carried = torch.zeros_like(d_parameters[0])
            for t in range(len(d_z) - 1, -1, -1):
                carried = layers.adjoint(t, carried)
        d_weights, d_biases = layers.gradients(before(*ctx.saved_tensors))
        d_injected = d_biases.pop(ctx.at)
        return None, d_injected, None, *d_weights, *d_biases


class _MemoryLoop(torch.autograd.Function):
    """The same with an LSTM between z_{t-1} and the layers that take h_t; see `MemoryChain`."""

    @staticmethod
    def forward(
        ctx: Any, noise: Tensor, gates: Tensor, injected: Tensor, ahead: int, lag: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        depth = (len(tensors) - 1) // 2 - 1
        weight_in, weight_h, *rest = tensors
        weights, biases = rest[: depth + 1], rest[depth + 1 :]
        frames, batch = noise.shape[:2]
        width = weight_h.shape[-1]
        first = Layers(weights[:ahead], biases[:ahead], (frames, batch), open_end=False, from_z=True)
        last = Layers(weights[ahead:], [injected, *biases[ahead:]], (frames, batch), open_end=True, from_z=False)
        draws = Draws(noise)
        active = torch.zeros_like(gates)  # sigmoid or tanh of the gates i, f, g, o
        cells = noise.new_zeros(frames + 1, batch, width)
        # the inputs of the gates side by side, so that they are one product: features of z_{t-1}, and h_{t-1}
        given = weight_in.shape[-1]
        inputs = noise.new_zeros(frames + 1, batch, given + width)
        hidden = inputs[..., given:]
        if first.outs:
            first.outs[-1] = inputs[:-1, :, :given]
        else:
            draws.z = inputs[1:, :, :given]
        joined = torch.cat([weight_in, weight_h], dim=-1)
        for out in first.outs if lag else []:
            out[0] = 0.0
        memory = fused_memory.Memory(joined, inputs, active, cells, lag)
        looped = 0 if fused_memory.forward(first, last, draws, gates, memory) else frames
        z = noise.new_zeros(noise.shape[1:])
        for t in range(looped):
            if t > 0 or not lag:
                first.forward(t, z)
                a = affine(gates[t], inputs[t], joined.mT, active[t])
                i, f, g, o = a.chunk(4, dim=-1)
                a[:, : 2 * width].sigmoid_()
                g.tanh_()
                o.sigmoid_()
                torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
                torch.tanh(cells[t + 1], out=hidden[t + 1]).mul_(o)
            z = draws.forward(t, last.forward(t, hidden[t + 1]))
        z, parameters = draws.drawn().contiguous(), last.parameters()
        ctx.first, ctx.last, ctx.draws, ctx.memory = first, last, draws, memory
        ctx.save_for_backward(z)
        return z, parameters

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first, last, memory = ctx.first, ctx.last, ctx.memory
        last.reach(ctx.draws, *grads)
        d_gates = fused_memory.adjoint(first, last, memory)
        if d_gates is None:
            d_gates = _memory_adjoint(first, last, memory)
        given = memory.inputs.shape[-1] - memory.cells.shape[-1]
        weights_1, biases_1 = first.gradients(before(*ctx.saved_tensors)) if first.outs else ([], [])
        weights_2, (d_injected, *biases_2) = last.gradients(memory.inputs[1:, :, given:])
        d_joined = over_frames(d_gates, memory.inputs[:-1], memory.joined)
        d_in, d_h_weights = d_joined.tensor_split([given], dim=-1)
        return None, d_gates, d_injected, None, None, d_in, d_h_weights, *weights_1, *weights_2, *biases_1, *biases_2


def _memory_adjoint(first: Layers, last: Layers, memory: fused_memory.Memory) -> Tensor:
    """The gradient of the gates before their activation, (T, B, 4H), frame by frame, and `deltas` of the layers."""
    joined, inputs, active, cells, lag = memory
    first.prepare()
    last.prepare()
    i, f, g, o = active.chunk(4, dim=-1)
    tanh_c = torch.tanh(cells[1:])
    # what a gradient of h_t or c_t is multiplied by on its way to each gate, for all frames at once
    to_c = o * (1.0 - tanh_c.square())
    to_gates = torch.stack([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g.square())], dim=-2)
    to_o = tanh_c * o * (1 - o)
    d_gates = torch.zeros_like(active)
    width = cells.shape[-1]
    given = inputs.shape[-1] - width
    gates_of_c = d_gates.unflatten(-1, (4, width))[..., :3, :]
    back = joined if first.outs else torch.cat([doubled(joined[..., :given]), joined[..., given:]], dim=-1)
    carried = torch.zeros_like(last.direct[0])
    d_h, d_c = (torch.zeros_like(cells[0]) for _ in range(2))
    for t in range(len(active) - 1, -1, -1):
        d_h = last.adjoint(t, carried, d_h)
        if t == 0 and lag:
            break
        d_c = torch.addcmul(d_c, d_h, to_c[t])
        torch.mul(d_c[:, None], to_gates[t], out=gates_of_c[t])
        torch.mul(d_h, to_o[t], out=d_gates[t, :, 3 * width :])
        d_c = d_c * f[t]
        d_e, d_h = times(d_gates[t], back).split([back.shape[-1] - width, width], dim=-1)
        carried = first.adjoint(t, d_e)
    for delta in first.deltas if lag else []:
        delta[0] = 0.0
    return d_gates
