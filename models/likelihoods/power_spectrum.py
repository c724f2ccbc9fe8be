r"""The distribution of the power of a circular complex Gaussian, and its decoder layer."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints

from models.core.conditional import Conditional
from models.core.tensors import to_float32
from models.likelihoods.base import LogFloor, Shape

__all__ = ["PowerSpectrum", "PowerSpectrumHead", "itakura_saito"]


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


class PowerSpectrumHead(Conditional):
    """Features (..., in) to a `PowerSpectrum` over the bins: an affine map gives o, and v = exp(o) + floor.

    Args:
        in_dim: size of the features.
        bins: number of frequency bins F.
        variance_floor: the smallest variance; 0, as in the papers, leaves the density unbounded in digital silence.
    """

    def __init__(self, in_dim: int, bins: int, variance_floor: float = 0.0) -> None:
        super().__init__()
        self.affine = nn.Linear(in_dim, bins)
        self.floor = LogFloor(variance_floor)

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return dist.Independent(PowerSpectrum(self.floor(to_float32(self.affine(h)))), 1)
