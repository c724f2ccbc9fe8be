"""An auxiliary cost of a guide, added to the objective as a poutine."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.poutine as poutine
from pyro.poutine.messenger import Messenger

__all__ = ["auxiliary_cost"]


class auxiliary_cost(Messenger):
    r"""Add what a guide asks a latent for to the objective, times `weight`: a factor after the model's site.

    The guide says what by `models.core.effects.auxiliary`; of Z-Forcing it is :math:`\sum_t \log p(b_t | z_t)`. The
    bound that is reported beside the objective does not hold the factor.

    Args:
        weight: alpha; 0 adds nothing.

    Raises:
        ValueError: for a negative weight; and where the model has no site of all frames that could be asked.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not weight >= 0.0:
            raise ValueError(f"weight = {weight}: expected at least 0")
        self.weight = weight
        self._asked: dict[str, Any] = {}
        self._drawn: set[str] = set()

    def __exit__(self, *args: Any) -> None:
        left, self._asked, self._drawn = [*self._asked], {}, set()
        super().__exit__(*args)
        if left and args[0] is None:
            raise ValueError(
                f"the model had no site of all frames of {left} to ask: run it with how='auto' or 'looped'"
            )

    def _pyro_auxiliary(self, msg: Any) -> None:
        name, density = msg["args"]
        if self.weight > 0.0:
            self._asked[name] = density

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._asked and name not in self._drawn:  # the guide's own
            self._drawn.add(name)
        elif name in self._asked:
            density = self._asked.pop(name)
            with poutine.scale(scale=self.weight):
                pyro.factor("auxiliary", density(msg["value"]))
