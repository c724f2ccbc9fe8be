"""Generation mode: the model fed its own output, as a poutine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["free_running"]


class free_running(Messenger):
    """Generation mode: where a conditional looks back at the data, let it see the mean that the model gave
    that frame.

    Given the latents these means are functions of them, so this is a model of its own, whose bound is a bound.

    Args:
        sites: names of the observed sites that this holds for.
        stop_gradient: whether no gradient flows back through that mean, as published.
    """

    def __init__(self, sites: Sequence[str] = ("x",), *, stop_gradient: bool = True) -> None:
        super().__init__()
        self.sites = sites
        self.stop_gradient = stop_gradient

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name in self.sites:
            own = axis.expected(name)
            msg["value"] = own.detach() if self.stop_gradient else own
            msg["done"] = True
