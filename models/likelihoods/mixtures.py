r"""Mixtures of Gaussians over a frame, with one component per frame or one per channel.

All parameters have the components in their last dimension, (..., T, N, K * D), so that frames can be concatenated like
those of any other distribution (`models.core.sites.rebuilt`).
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from models.likelihoods.base import ComponentsHead

__all__ = ["ChannelMixture", "ChannelMixtureHead", "FrameMixture", "MixtureHead"]

Shape = Size | list[int] | tuple[int, ...]


class FrameMixture(dist.TorchDistribution):
    r"""A mixture of K diagonal Gaussians over a frame, one component for the whole frame:

    .. math:: \log p(x) = \log \sum_k w_k \prod_d N(x_d; m_{kd}, s_{kd}^2).

    Args:
        logits: log w_k up to a constant, (..., K).
        means: m, (..., K * D), component by component.
        scales: s, (..., K * D).
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "means": constraints.real_vector,
        "scales": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector

    def __init__(self, logits: Tensor, means: Tensor, scales: Tensor, validate_args: bool | None = None) -> None:
        self.logits, self.means, self.scales = logits, means, scales
        self.components = logits.shape[-1]
        self.channels = means.shape[-1] // self.components
        super().__init__(means.shape[:-1], Size([self.channels]), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return (self._weights * self._split(self.means)).sum(-2)

    @property
    def variance(self) -> Tensor:
        second = (self._weights * (self._split(self.means).square() + self._split(self.scales).square())).sum(-2)
        return second - self.mean.square()

    def expand(self, batch_shape: Shape, _instance: object = None) -> FrameMixture:
        logits, means, scales = (p.expand(*batch_shape, p.shape[-1]) for p in (self.logits, self.means, self.scales))
        return type(self)(logits, means, scales, validate_args=False)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            k = self._sample_component(shape)
            means, scales = (self._split(p).expand(*shape, -1, -1) for p in (self.means, self.scales))
            mean, scale = (p.gather(-2, k).squeeze(-2) for p in (means, scales))
            return torch.normal(mean, scale)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        density: Tensor = torch.logsumexp(self.logits.log_softmax(-1) + self._densities(value).sum(-1), dim=-1)
        return density

    def _sample_component(self, shape: Shape) -> Tensor:
        """Draw the component of every channel, (..., 1, D)."""
        k: Tensor = dist.Categorical(logits=self.logits.expand(*shape, self.components)).sample()
        return k[..., None, None].expand(*shape, 1, self.channels)

    @property
    def _weights(self) -> Tensor:
        return self.logits.softmax(-1)[..., None]

    def _split(self, parameter: Tensor) -> Tensor:
        """(..., K * D) to (..., K, D)."""
        return parameter.reshape(*parameter.shape[:-1], self.components, self.channels)

    def _densities(self, value: Tensor) -> Tensor:
        """log N of each channel under each component, (..., K, D)."""
        scale = self._split(self.scales)
        standard = (value.unsqueeze(-2) - self._split(self.means)) / scale
        return -0.5 * standard.square() - scale.log() - 0.5 * math.log(2 * math.pi)


class ChannelMixture(FrameMixture):
    r"""A mixture of K Gaussians for each channel, with weights shared by all channels:

    .. math:: \log p(x) = \sum_d \log \sum_k w_k N(x_d; m_{kd}, s_{kd}^2).
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        weights = self.logits.log_softmax(-1)[..., None]
        return torch.logsumexp(weights + self._densities(value), dim=-2).sum(-1)

    def _sample_component(self, shape: Shape) -> Tensor:
        logits = self.logits[..., None, :].expand(*shape, self.channels, self.components)
        k: Tensor = dist.Categorical(logits=logits).sample()
        return k[..., None, :]


class MixtureHead(ComponentsHead):
    r"""Features (..., in) to a `FrameMixture`: an affine map gives logits, means and o, and `Scale` maps o to standard
    deviations.
    """

    distribution: type[FrameMixture] = FrameMixture

    @staticmethod
    def sizes_of(components: int, x_dim: int) -> list[int]:
        return [components, components * x_dim, components * x_dim]

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        logits, means, o = self.parameters_of(h)
        return self.distribution(self.weights(logits), means, self.scale(o), validate_args=False)


class ChannelMixtureHead(MixtureHead):
    """Features (..., in) to a `ChannelMixture`; arguments as of `ComponentsHead`."""

    distribution = ChannelMixture
