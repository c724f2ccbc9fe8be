"""Latents at the means of their conditionals, as a poutine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["mean_latents"]


class mean_latents(Messenger):
    """Give every latent that would be drawn the mean of its conditional, and let what follows from it see the mean.

    Args:
        sites: names of those that this holds for; all of them by default. Without data x is one of them.
    """

    def __init__(self, sites: Sequence[str] | None = None) -> None:
        super().__init__()
        self.sites = sites

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, _ = msg["args"]
        if self.sites is None or name in self.sites:
            msg["value"] = distribution.mean
            msg["done"] = True
