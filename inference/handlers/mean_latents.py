"""Latents at the means of their conditionals, as a poutine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["mean_latents"]


class mean_latents(Messenger):
    """Set every latent to the mean of its conditional in place of a draw; later conditionals are given that mean.

    Args:
        sites: names of the sites that are set; all by default, including x where it is not observed.
    """

    def __init__(self, sites: Sequence[str] | None = None) -> None:
        super().__init__()
        self.sites = sites

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, _ = msg["args"]
        if self.sites is None or name in self.sites:
            msg["value"] = distribution.mean
            msg["done"] = True
