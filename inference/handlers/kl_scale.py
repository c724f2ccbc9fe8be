"""Weights of the KL of latents, as a poutine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from models.core.effects import base_name

__all__ = ["kl_scale"]


class kl_scale(Messenger):
    """Multiply the weight of latent sites by `beta`, in model and guide: beta times their KL in the
    objective.

    .. math:: E_q[\\log p(x | z)] - \\beta\\, KL(q(z | x), p(z))

    (Higgins et al., "beta-VAE", 2017.) Zero is allowed. What `inference.objectives.elbo.Bound` reports as the
    bound and as KLs is never scaled.

    Args:
        beta: the weight; a tensor is not looked at.
        sites: names of the latents that it holds for; all of them by default.
        own: weights of single latents by name, in beta's place.

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
