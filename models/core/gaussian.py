"""Diagonal Gaussians whose log-density has few passes over memory."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor

__all__ = ["DiagonalNormal"]


class DiagonalNormal(dist.Independent):
    r"""N(mean, diag(e^l)) over the last dimension, from mean and log-variance l.

    It is ``Independent(Normal(mean, exp(l / 2)), 1)``, with a log-density that is differentiated in one piece:

    .. math:: \log N(v) = -\frac12 \sum_i (u_i^2 + l_i + \log 2\pi), \qquad u = (v - \mathrm{mean})\, e^{-l/2}

    Args:
        mean: (..., L).
        log_variance: l, of a shape that broadcasts with it.

    Example:
        >>> p = DiagonalNormal(torch.zeros(2), torch.zeros(2))
        >>> round(float(p.log_prob(torch.zeros(2)) + math.log(2.0 * math.pi)), 6)
        0.0
    """

    def __init__(self, mean: Tensor, log_variance: Tensor) -> None:
        self.log_variance = log_variance
        super().__init__(dist.Normal(mean, torch.exp(0.5 * log_variance)), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalNormal:
        new: DiagonalNormal = DiagonalNormal.__new__(DiagonalNormal)
        shape = Size([*batch_shape, *self.event_shape])
        new.log_variance = self.log_variance.expand(shape)
        dist.Independent.__init__(new, self.base_dist.expand(shape), 1, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        base: Any = self.base_dist
        if torch._C._are_functorch_transforms_active():
            density: Tensor = super().log_prob(value)  # type: ignore[no-untyped-call]  # torch's
            return density
        if base._validate_args:
            base._validate_sample(value)
        apply: Any = _LogDensity.apply
        density = apply(value, base.loc, self.log_variance, base.scale.detach())
        return density


class _LogDensity(torch.autograd.Function):
    """The log-density of values, of mean, log-variance and (a constant here) standard deviation."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, mean: Tensor, log_variance: Tensor, deviation: Tensor) -> Tensor:
        u = (value - mean).div_(deviation)
        ctx.save_for_backward(value, mean, log_variance, deviation, u)
        summed = torch.addcmul(log_variance, u, u).sum(-1)
        return summed.add_(u.shape[-1] * math.log(2.0 * math.pi)).mul_(-0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        value, mean, log_variance, deviation, u = ctx.saved_tensors
        gradient = grads[0][..., None]
        if torch.is_grad_enabled():  # with create_graph: this gradient is differentiated again
            deviation = torch.exp(0.5 * log_variance)
            u = (value - mean) / deviation
        needs_value, needs_mean, needs_log_variance, _ = ctx.needs_input_grad
        of_mean = u / deviation * gradient if needs_value or needs_mean else None
        of_value = -of_mean if needs_value and of_mean is not None else None
        of_log_variance = (u * u - 1.0) * (0.5 * gradient) if needs_log_variance else None
        return of_value, of_mean, of_log_variance, None
