r"""A fast loop for guides in which z_t depends on z_{t-1} through a chain of affine maps and tanh.

.. math:: h_0 = z_{t-1}, \quad h_i = \tanh(W_i h_{i-1} + b_i), \quad (\mu_t, \ell_t) = W_n h_{n-1} + b_n,
\quad
    z_t = \mu_t + e^{\ell_t / 2} \odot \epsilon_t,

where at one layer the bias is a function of the data, c_t, computed for all frames beforehand. Autograd over
such a loop spends its time on thousands of graph nodes; here the loop builds no graph, the backward pass runs
the adjoint alone, and the gradient of each weight is one product over all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Chain"]


class Chain(NamedTuple):
    """A step z_{t-1} -> (mean, log-variance) of z_t, as layers.

    Attributes:
        injected: c (..., T, N, width), the bias of the layer `weight` with whatever the data adds to it.
        before: the layers before that one.
        weight: its weights, (width, in).
        after: the layers behind it. The last layer of all has no tanh: it gives mean and log-variance.
    """

    injected: Tensor
    before: Sequence[nn.Linear]
    weight: Tensor
    after: Sequence[nn.Linear]

    def run(self, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From epsilon (..., T, N, L), z, mean and log-variance, each (..., T, N, L)."""
        frames, sequences, _ = noise.shape[-3:]
        batch = noise.shape[:-3]

        def fold(v: Tensor) -> Tensor:
            frames_first = v.expand(*batch, *v.shape[-3:]).movedim(-3, 0)
            return frames_first.reshape(frames, -1, v.shape[-1]).contiguous()

        others = [*self.before, *self.after]
        weights = [layer.weight for layer in others]
        weights.insert(len(self.before), self.weight)
        biases = [layer.bias for layer in others]
        run: Any = _Chain.apply
        folded = run(fold(noise), fold(self.injected), len(self.before), *weights, *biases)
        z, parameters = (v.reshape(frames, *batch, sequences, -1).movedim(0, -3) for v in folded)
        mean, log_variance = parameters.chunk(2, dim=-1)
        return z, mean, log_variance


class _Chain(torch.autograd.Function):
    """From noise (T, B, L), injected (T, B, width), its layer, weights and biases, to z (T, B, L)
    and its parameters (T, B, 2L).
    """

    @staticmethod
    def forward(ctx: Any, noise: Tensor, injected: Tensor, at: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        depth = (len(tensors) + 1) // 2
        weights, biases = tensors[:depth], list(tensors[depth:])
        biases.insert(at, injected)
        frames, batch, latent = noise.shape
        transposed = [w.t() for w in weights]
        outs = [noise.new_empty(frames, batch, len(w)) for w in weights]
        z = torch.empty_like(noise)
        scaled = torch.empty_like(noise)
        before = noise.new_zeros(batch, latent)
        for t in range(frames):
            h = before
            for i in range(depth):
                bias = injected[t] if i == at else biases[i]
                h = torch.addmm(bias, h, transposed[i], out=outs[i][t])
                if i < depth - 1:
                    h.tanh_()
            mean, log_variance = h[:, :latent], h[:, latent:]
            spread = torch.mul(log_variance, 0.5, out=scaled[t]).exp_().mul_(noise[t])
            before = torch.add(mean, spread, out=z[t])
        ctx.at, ctx.depth = at, depth
        ctx.save_for_backward(z, scaled, *outs[:-1], *weights)
        ctx.set_materialize_grads(True)
        return z, outs[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_z, d_parameters = grads
        depth = ctx.depth
        z, scaled, *saved = ctx.saved_tensors
        hidden, weights = saved[: depth - 1], saved[depth - 1 :]
        frames, batch, latent = z.shape
        slopes = [1.0 - h.square() for h in hidden]
        deltas = [z.new_empty(frames, batch, len(w)) for w in weights]
        half = 0.5 * scaled
        carried = z.new_zeros(batch, latent)
        for t in range(frames - 1, -1, -1):
            total = carried.add_(d_z[t])
            delta = deltas[-1][t]
            torch.add(d_parameters[t, :, :latent], total, out=delta[:, :latent])
            torch.addcmul(d_parameters[t, :, latent:], total, half[t], out=delta[:, latent:])
            for i in range(depth - 1, 0, -1):
                delta = torch.mm(delta, weights[i], out=deltas[i - 1][t]).mul_(slopes[i - 1][t])
            carried = torch.mm(delta, weights[0])
        inputs = [torch.cat([z.new_zeros(1, batch, latent), z[:-1]]), *hidden]
        d_weights = [d.flatten(0, 1).t() @ h.flatten(0, 1) for d, h in zip(deltas, inputs, strict=True)]
        d_biases = [d.sum((0, 1)) for i, d in enumerate(deltas) if i != ctx.at]
        d_noise = None  # noise is data
        return d_noise, deltas[ctx.at], None, *d_weights, *d_biases
