"""Gaussian latents drawn from given noise, as a poutine; sources of noise are in `inference.handlers.noise`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.handlers.noise import Given, Noise

__all__ = ["given_noise"]


class given_noise(Messenger):
    """Draw diagonal Gaussian latents from noise that a source gives: z = mean + standard deviation * epsilon.

    A latent that another handler has set, a point mass, and one that the source has no noise for are left as they are;
    so are other distributions, unless the source refuses them.

    Args:
        noise: the source; or epsilon itself by site name, (..., T, N, L), or (..., N, L) for a sequence-level site.

    Raises:
        UserError: for a latent that is not Gaussian, by a source that requires all to be.
    """

    def __init__(self, noise: Mapping[str, Tensor] | Noise) -> None:
        super().__init__()
        self.noise = noise if isinstance(noise, Noise) else Given(noise)

    def __enter__(self) -> Any:
        self.noise.begin()
        return super().__enter__()

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]
        base = distribution
        while isinstance(base, dist.Independent):
            base = base.base_dist
        if msg["done"] or isinstance(base, dist.Delta):
            return
        if not isinstance(base, dist.Normal):
            self.noise.refuse(name, base)
            return
        epsilon = self.noise.normal(name, distribution, axis)
        if epsilon is not None:
            msg["value"] = distribution.mean + distribution.stddev * epsilon
            msg["done"] = True

    def _pyro_uniform(self, msg: Any) -> None:
        numbers = None if msg["done"] else self.noise.uniform(*msg["args"])
        if numbers is not None:
            msg["value"], msg["done"] = numbers, True
