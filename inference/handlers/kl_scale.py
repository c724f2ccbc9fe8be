"""Weights of the KL of latents, as a poutine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from models.core.effects import base_name

__all__ = ["kl_scale"]


class kl_scale(Messenger):
    """Multiply the scale of latent sites in model and guide by `beta`, the weight of their KL in the objective.

    .. math:: E_q[\\log p(x | z)] - \\beta\\, KL(q(z | x), p(z))

    (Higgins et al., "beta-VAE", 2017.) Zero is allowed. The bound and the KLs of `inference.objectives.elbo.Bound` are
    always unweighted.

    Args:
        beta: the weight, at least 0 (not checked for a tensor).
        sites: names of the latents that are weighted; all by default.
        own: weights of single latents by name, which replace beta.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(
        self,
        beta: float | Tensor,
        sites: Sequence[str] | None = None,
        own: Mapping[str, float | Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.own = own or {}
        for weight in (beta, *self.own.values()):
            if not isinstance(weight, Tensor) and not weight >= 0.0:
                raise ValueError(f"beta = {weight}: expected a weight of at least 0")
        self.beta = beta
        self.sites = sites

    def _pyro_sample(self, msg: Any) -> None:
        name = base_name(msg["name"])
        if not msg["is_observed"] and (self.sites is None or name in self.sites):
            msg["scale"] = msg["scale"] * self.own.get(name, self.beta)
