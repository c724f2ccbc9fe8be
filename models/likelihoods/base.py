r"""Likelihoods: the registry, the Bernoulli and Gaussian likelihoods, and shared parts.

`head` builds the last layer of a decoder, which maps features to the distribution of a frame of data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from dvae_pyro.errors import UserError, nearest
from models.core.affine import AffineMaps
from models.core.conditional import Conditional
from models.core.tensors import normal, to_float32

Shape = Size | list[int] | tuple[int, ...]

__all__ = [
    "LIKELIHOODS",
    "Likelihood",
    "LikelihoodSettings",
    "BernoulliHead",
    "ComponentsHead",
    "GaussianOutput",
    "Scale",
    "StartsFromData",
    "Weights",
    "head",
    "likelihood_kind",
    "log_odds",
]


class LogFloor(nn.Module):
    """log(exp(o) + floor), for a log-variance o; the identity for a floor of 0."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.log_floor = math.log(floor) if floor > 0 else None

    def forward(self, o: Tensor) -> Tensor:
        return o if self.log_floor is None else torch.logaddexp(o, o.new_full((), self.log_floor))


class Scale(nn.Module):
    """A standard deviation from o: softplus(o) plus the root of a variance floor, or softplus(o) clamped to bounds.

    Args:
        variance_floor: the floor; ignored if `bounds` is set.
        bounds: the smallest and the largest standard deviation.
    """

    def __init__(self, variance_floor: float, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.floor, self.bounds = math.sqrt(variance_floor), bounds

    def forward(self, o: Tensor) -> Tensor:
        s = softplus(o)
        return s + self.floor if self.bounds is None else s.clamp(*self.bounds)


class Weights(nn.Module):
    """Mixture weights with a floor: logits (..., K) to logits of max(weight, floor); the identity for a floor of 0.

    Args:
        floor: the smallest weight, before normalisation.
    """

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.log_floor = math.log(floor) if floor > 0 else None

    def forward(self, logits: Tensor) -> Tensor:
        return logits if self.log_floor is None else logits.log_softmax(-1).clamp_min(self.log_floor)


@runtime_checkable
class StartsFromData(Protocol):
    """The last layer of a decoder that can be initialised from statistics of training data."""

    def fit(self, sequences: Sequence[Tensor]) -> None:
        """Initialise from data, each (T, D)."""
        ...


def log_odds(sequences: Sequence[Tensor]) -> Tensor:
    """Log-odds of a one for each of the D values of data, each (T, D): log((n_1 + 1/2) / (n_0 + 1/2)).

    Used as initial bias: values that are rarely one have large negative log-odds, which training from zero reaches
    only after many steps.
    """
    ones = torch.stack([x.double().cpu().sum(0) for x in sequences]).sum(0)
    zeros = sum(len(x) for x in sequences) - ones
    return torch.log(ones + 0.5) - torch.log(zeros + 0.5)


class BernoulliHead(Conditional):
    """Features (..., in) to a Bernoulli over each of the D values of a frame: an affine map gives the logits.

    Args:
        in_dim: size of the features.
        x_dim: size D of a frame.
        variance_floor: not used: the density of a Bernoulli is bounded.
    """

    def __init__(self, in_dim: int, x_dim: int, variance_floor: float = 0.0) -> None:
        super().__init__()
        self.affine = nn.Linear(in_dim, x_dim)

    def fit(self, sequences: Sequence[Tensor]) -> None:
        """Initialise the bias from the fraction of ones of each value in data, each (T, D)."""
        with torch.no_grad():
            self.affine.bias.copy_(log_odds(sequences))

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return dist.Independent(dist.Bernoulli(logits=to_float32(self.affine(h))), 1)


class GaussianOutput(Conditional):
    """Features (..., in) to a diagonal Gaussian: an affine map gives mean m and o, and the variance is exp(o) + floor.

    Args:
        in_dim: size of the features.
        x_dim: size D of a frame.
        variance_floor: the smallest variance; 0 leaves the density unbounded.
    """

    def __init__(self, in_dim: int, x_dim: int, variance_floor: float = 0.0) -> None:
        super().__init__()
        self.affine = AffineMaps(in_dim, [x_dim, x_dim])
        self.floor = LogFloor(variance_floor)

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        mean, o = to_float32(self.affine(h)).chunk(2, dim=-1)
        return normal(mean, self.floor(o))


class ComponentsHead(Conditional):
    """Features (..., in) to a mixture of Gaussians: an affine map gives its parameters.

    Args:
        in_dim: size of the features.
        x_dim: size D of a frame.
        variance_floor: the square of the smallest standard deviation.
        components: K.
        scale_bounds: the smallest and the largest standard deviation, which replace the floor.
        weight_floor: the smallest weight of a component.
    """

    def __init__(
        self,
        in_dim: int,
        x_dim: int,
        variance_floor: float = 0.0,
        components: int = 1,
        *,
        scale_bounds: tuple[float, float] | None = None,
        weight_floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.sizes = self.sizes_of(components, x_dim)
        self.scale, self.weights = Scale(variance_floor, scale_bounds), Weights(weight_floor)
        self.affine = AffineMaps(in_dim, self.sizes)

    @staticmethod
    def sizes_of(components: int, x_dim: int) -> list[int]:
        """The sizes of its parameters, which are outputs of the affine map."""
        raise NotImplementedError

    def parameters_of(self, h: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the affine map, one for each of `sizes`."""
        parts: tuple[Tensor, ...] = to_float32(self.affine(h)).split(self.sizes, dim=-1)
        return parts


class Likelihood(NamedTuple):
    """A kind of likelihood.

    Attributes:
        place: ``"module:Class"`` of the last layer of the decoder, constructed with the size of the features, the size
            of a frame, and the variance floor.
        support: the support of the distribution.
        support_text: the support in words, for messages.
        has_components: whether it is a mixture and takes a number of components.
        bits: number of the last values of a frame that are binary, where the others are real.
    """

    place: str
    support: constraints.Constraint
    support_text: str
    has_components: bool = False
    bits: int = 0


_PEN = constraints.cat([constraints.real, constraints.boolean], dim=-1, lengths=[2, 1])

LIKELIHOODS: dict[str, Likelihood] = {
    "power_spectrum": Likelihood(
        "models.likelihoods.power_spectrum:PowerSpectrumHead", constraints.nonnegative, "at least 0"
    ),
    "bernoulli": Likelihood("models.likelihoods.base:BernoulliHead", constraints.boolean, "0 or 1"),
    "gaussian": Likelihood("models.likelihoods.base:GaussianOutput", constraints.real, "numbers"),
    "mixture": Likelihood("models.likelihoods.mixtures:MixtureHead", constraints.real, "numbers", True),
    "channel_mixture": Likelihood("models.likelihoods.mixtures:ChannelMixtureHead", constraints.real, "numbers", True),
    "pen": Likelihood("models.likelihoods.pen:PenStrokeHead", _PEN, "two numbers and a 0 or 1", True, 1),
}


class LikelihoodSettings(Protocol):
    """The settings of a model that concern its likelihood; see `models.dvae.ModelSettings`."""

    likelihood: str
    bins: int
    variance_floor: float
    scale_bounds: tuple[float, float] | None
    weight_floor: float
    components: int


def likelihood_kind(name: str) -> Likelihood:
    """The kind of likelihood of a name.

    Raises:
        UserError: for an unknown name.
    """
    if name not in LIKELIHOODS:
        raise UserError(f"unknown likelihood '{name}'.{nearest(name, LIKELIHOODS)} Known: {', '.join(LIKELIHOODS)}.")
    return LIKELIHOODS[name]


def head(settings: LikelihoodSettings, in_dim: int) -> Conditional:
    """The last layer of a decoder, from features of size `in_dim` to the distribution of a frame."""
    kind = likelihood_kind(settings.likelihood)
    module, _, name = kind.place.partition(":")
    more: dict[str, Any] = {}
    if kind.has_components:
        more = {name: getattr(settings, name) for name in ("components", "scale_bounds", "weight_floor")}
    built: Conditional = getattr(import_module(module), name)(in_dim, settings.bins, settings.variance_floor, **more)
    return built
