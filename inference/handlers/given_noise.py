"""Gaussian latents drawn from given noise, as a poutine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["given_noise"]


class given_noise(Messenger):
    """Draw Gaussian latents from the noise passed in: z = mean + standard deviation * noise.

    Args:
        noise: standard normal noise by site name, (..., T, N, L), or (..., N, L) for a sequence-level site.
    """

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]
        if name in self.noise:
            noise = self.noise[name]
            frames = noise if axis is None else axis.feature(noise)
            msg["value"] = distribution.mean + distribution.variance.sqrt() * frames
            msg["done"] = True
