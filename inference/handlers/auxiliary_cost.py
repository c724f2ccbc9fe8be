"""An auxiliary cost of a guide, added to the objective as a poutine."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.poutine as poutine
from pyro.poutine.messenger import Messenger

__all__ = ["auxiliary_cost"]


class auxiliary_cost(Messenger):
    r"""Add the auxiliary log-density of a guide to the objective, times `weight`, as a factor after the model's site.

    The guide defines the density by `models.core.effects.auxiliary`; for Z-Forcing it is
    :math:`\sum_t \log p(b_t | z_t)`. The reported bound does not include the factor.

    Args:
        weight: alpha; 0 disables the cost.

    Raises:
        ValueError: for a negative weight; and if the model has no site that holds all frames of the latent.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not weight >= 0.0:
            raise ValueError(f"weight = {weight}: expected at least 0")
        self.weight = weight
        self._densities: dict[str, Any] = {}
        self._drawn: set[str] = set()

    def __exit__(self, *args: Any) -> None:
        left, self._densities, self._drawn = [*self._densities], {}, set()
        super().__exit__(*args)
        if left and args[0] is None:
            raise ValueError(
                f"auxiliary cost of {left}: the model has no site of this name that holds all frames. Run model and "
                "guide with how='auto' or 'looped'"
            )

    def _pyro_auxiliary(self, msg: Any) -> None:
        name, density = msg["args"]
        if self.weight > 0.0:
            self._densities[name] = density

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._densities and name not in self._drawn:  # the guide's site; the model's comes next
            self._drawn.add(name)
        elif name in self._densities:
            density = self._densities.pop(name)
            with poutine.scale(scale=self.weight):
                pyro.factor("auxiliary", density(msg["value"]))
