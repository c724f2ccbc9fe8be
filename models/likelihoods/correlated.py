"""A Gaussian with a full covariance over a frame."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from models.likelihoods.base import Shape

__all__ = ["CorrelatedNormal"]


class CorrelatedNormal(dist.TorchDistribution):
    r"""N(m, F F') over the last dimension.

    Each parameter holds a frame in its last dimension, so that frames are concatenated like those of any other
    distribution (`models.core.sites.rebuilt`).

    Args:
        loc: m, (..., D).
        factor: the lower Cholesky factor F, flattened, (..., D * D).
    """

    arg_constraints = {"loc": constraints.real_vector, "factor": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.factor = loc, factor
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        variance: Tensor = self.scale_tril.square().sum(-1)
        return variance

    @property
    def scale_tril(self) -> Tensor:
        """F, (..., D, D)."""
        factor: Tensor = self.factor.unflatten(-1, (self.loc.shape[-1], -1))
        return factor

    def expand(self, batch_shape: Shape, _instance: object = None) -> CorrelatedNormal:
        loc, factor = (p.expand(*batch_shape, p.shape[-1]) for p in (self.loc, self.factor))
        return CorrelatedNormal(loc, factor, validate_args=False)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ noise[..., None])[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        factor = self.scale_tril
        white = torch.linalg.solve_triangular(factor, (value - self.loc)[..., None], upper=False)[..., 0]
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        density: Tensor = -0.5 * white.square().sum(-1) - half_log_det - 0.5 * value.shape[-1] * math.log(2 * math.pi)
        return density
