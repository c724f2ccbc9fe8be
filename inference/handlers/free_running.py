"""Free running: the model is given its own output as the past, as a poutine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["free_running"]


class free_running(Messenger):
    """Free running (mode ``"gen"``): conditionals on past data are given the model's own mean of that frame instead.

    The means are functions of the latents, so this defines a model of its own, and its ELBO is a valid bound.

    Args:
        sites: names of the observed sites that are replaced.
        stop_gradient: stop the gradient through the mean, as in the public code.
    """

    def __init__(self, sites: Sequence[str] = ("x",), *, stop_gradient: bool = True) -> None:
        super().__init__()
        self.sites = sites
        self.stop_gradient = stop_gradient

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name in self.sites:
            mean = axis.expected(name)
            msg["value"] = mean.detach() if self.stop_gradient else mean
            msg["done"] = True
