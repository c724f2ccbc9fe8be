r"""The distribution of the power of a circular complex Gaussian, and its decoder layer."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from models.core.affine import Affine
from models.core.conditional import Conditional
from models.core.tensors import to_float32
from models.likelihoods.base import LogFloor, Shape

__all__ = ["FlooredSpectrum", "PowerSpectrum", "PowerSpectrumHead", "itakura_saito"]


class PowerSpectrum(dist.TorchDistribution):
    r"""x = |s|^2 of a circular complex Gaussian s with variance v: exponential with mean v.

    .. math:: \log p(x) = -\log v - x / v = -d_{IS}(x, v) - \log x - 1

    so the negative log-density is the Itakura-Saito divergence up to terms in x alone. (Per STFT coefficient,
    log p(s) = log p(x) - log pi.) Unlike d_IS it is finite at x = 0.

    Args:
        log_variance: log v, any shape.

    Example:
        >>> x, v = torch.tensor(2.0), torch.tensor(4.0)
        >>> float(PowerSpectrum(v.log()).log_prob(x) + itakura_saito(x, v) + x.log() + 1).__round__(6)
        0.0
    """

    arg_constraints = {"log_variance": constraints.real}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, log_variance: Tensor, validate_args: bool | None = None) -> None:
        self.log_variance = log_variance
        super().__init__(log_variance.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.log_variance.exp()

    @property
    def variance(self) -> Tensor:
        return (2.0 * self.log_variance).exp()

    def expand(self, batch_shape: Shape, _instance: object = None) -> PowerSpectrum:
        return PowerSpectrum(self.log_variance.expand(batch_shape), validate_args=False)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        return torch.empty_like(self.log_variance.expand(shape)).exponential_() * self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_precision = -self.log_variance  # few memory passes: with particles this costs as much as the layer before
        return torch.addcmul(log_precision, value, log_precision.exp(), value=-1)


def itakura_saito(x: Tensor, v: Tensor) -> Tensor:
    r"""The Itakura-Saito divergence of two power spectra, bin by bin: x / v - log(x / v) - 1."""
    ratio = x / v
    return ratio - ratio.log() - 1.0


class FlooredSpectrum(dist.Independent):
    """`PowerSpectrum` over the last dimension with variance exp(o) + floor, whose log-density is one pass over memory.

    It is ``Independent(PowerSpectrum(floor(o)), 1)``, which is computed where more than the log-density is asked for.

    Args:
        o: log-variance before the floor, (..., F).
        floor: log(exp(o) + floor), of o.
    """

    # of the base, which need not be computed for them
    arg_constraints = {}
    support = constraints.independent(constraints.nonnegative, 1)
    has_rsample = True
    has_enumerate_support = False
    _validate_args = False

    def __init__(self, o: Tensor, floor: LogFloor) -> None:
        self.o, self.floor, self.reinterpreted_batch_ndims = o, floor, 1
        Distribution.__init__(self, o.shape[:-1], o.shape[-1:])
        if Distribution._validate_args:
            self.base_dist  # noqa: B018  # its parameters are checked

    @cached_property
    def base_dist(self) -> PowerSpectrum:
        """The distribution of each bin."""
        return PowerSpectrum(self.floor(self.o))

    def bin_variances(self) -> Tensor:
        """The variance v of each bin, (..., F): `mean` up to rounding, in fewer passes over memory."""
        v = self.o.exp()
        return v if self.floor.log_floor is None else v + math.exp(self.floor.log_floor)

    def expand(self, batch_shape: Shape, _instance: object = None) -> FlooredSpectrum:
        return FlooredSpectrum(self.o.expand(*batch_shape, *self.event_shape), self.floor)

    def log_prob(self, value: Tensor) -> Tensor:
        if Distribution._validate_args:
            self.base_dist._validate_sample(value)
        o = self.o
        if value.requires_grad or value.dtype != o.dtype or o.shape[o.dim() - value.dim() :] != value.shape:
            density: Tensor = super().log_prob(value)  # type: ignore[no-untyped-call]  # torch's
        else:
            floor = 0.0 if self.floor.log_floor is None else math.exp(self.floor.log_floor)
            density = _log_density(o, value, floor)
        return density


BLOCK = 2**17
"""Values per block on a CPU, chosen so that intermediate results stay in its cache."""
MOST = {torch.float32: 80.0, torch.float64: 700.0}
"""Log-variances from which on exp is not computed: a floor is far below."""


class _LogDensity(torch.autograd.Function):
    r"""sum_f -log v_f - x_f / v_f with v = e^o + floor, and its slope (e^o / v) (x / v - 1), in one pass."""

    @staticmethod
    def forward(ctx: Any, o: Tensor, x: Tensor, floor: float) -> Tensor:
        bins = o.shape[-1]
        density = o.new_empty(o.shape[:-1])
        slope = torch.empty_like(o, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        rows = max(1, x.numel() // bins)
        rows = min(rows, max(1, BLOCK // bins)) if o.device.type == "cpu" else rows
        scratch = o.new_empty(2 if slope is not None else 3, rows, bins)
        for k, of_draw in enumerate(o.reshape(-1, *x.shape)):
            flat_o, flat_x = of_draw.reshape(-1, bins), x.reshape(-1, bins)
            to_density = density.view(-1, len(flat_x))[k]
            to_slope = None if slope is None else slope.view(-1, *flat_x.shape)[k]
            for start in range(0, len(flat_x), rows):
                some = slice(start, start + rows)
                v, log_v, *rest = scratch[:, : len(flat_x[some])]
                e = rest[0] if to_slope is None else to_slope[some]
                to_density[some] = _of_block(flat_o[some], flat_x[some], floor, e, v, log_v, with_slope=not rest)
        ctx.floor = floor
        ctx.save_for_backward(o, x, *([] if slope is None else [slope]))
        return density

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grads
        o, x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # with create_graph: this gradient is differentiated again
            e = o.exp()
            v = e + ctx.floor
            slope = e / v * (x / v - 1.0)
        return slope * gradient[..., None], None, None


def _log_density(o: Tensor, x: Tensor, floor: float) -> Tensor:
    density: Tensor = _LogDensity.apply(o, x, floor)  # type: ignore[no-untyped-call]  # torch's
    return density


def _of_block(o: Tensor, x: Tensor, floor: float, e: Tensor, v: Tensor, log_v: Tensor, *, with_slope: bool) -> Tensor:
    """Log-densities (B,) of o and x (B, F).

    `e`, `v` and `log_v` are buffers (B, F) for intermediate results; with `with_slope` the slope is left in `e`.
    """
    torch.clamp_max(o, MOST.get(o.dtype, 80.0), out=e).exp_()
    if floor == 0.0:
        ratio = torch.div(x, e, out=v)
        log_v.copy_(o)
        e.fill_(1.0)
    else:
        torch.add(e, floor, out=v)
        torch.maximum(torch.log(v, out=log_v), o, out=log_v)  # beyond what exp was computed of, and within rounding
        e.div_(v)
        ratio = torch.div(x, v, out=v)
    density = log_v.add_(ratio).sum(-1).neg_()
    if with_slope:
        e.mul_(ratio.sub_(1.0))
    return density


class PowerSpectrumHead(Conditional):
    """Features (..., in) to a `PowerSpectrum` over the bins: an affine map gives o, and v = exp(o) + floor.

    Args:
        in_dim: size of the features.
        bins: number of frequency bins F.
        variance_floor: the smallest variance; 0, as in the papers, leaves the density unbounded in digital silence.
    """

    def __init__(self, in_dim: int, bins: int, variance_floor: float = 0.0) -> None:
        super().__init__()
        self.affine = Affine(in_dim, bins)
        self.floor = LogFloor(variance_floor)

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return FlooredSpectrum(to_float32(self.affine(h)), self.floor)
