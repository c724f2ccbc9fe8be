"""Handlers around a model, a guide or an objective: what papers change about them, as poutines that compose.

Each handler is a Pyro messenger: ``with kl_scale(0.1): loss = objective(x, lengths)``. Under every
    interpreter of the time axis
they act alike: a site ``z_12`` of the frame-by-frame form is the site ``z``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["base_name", "free_running", "given_noise", "kl_scale", "mean_latents"]


def base_name(site: str) -> str:
    """The name of a site without its frame: ``"z_12"`` is ``"z"``.

    Example:
        >>> base_name("z_12"), base_name("mu2")
        ('z', 'mu2')
    """
    return re.sub(r"_\d+$", "", site)


class kl_scale(Messenger):
    """Multiply the weight of latent sites by `beta`, in model and guide: beta times their KL in the
    objective.

    .. math:: E_q[\\log p(x | z)] - \\beta\\, KL(q(z | x), p(z))

    (Higgins et al., "beta-VAE", 2017.) Zero is allowed. What `inference.objectives.Bound` reports as the
    bound and as KLs is never scaled.

    Args:
        beta: the weight.
        sites: names of the latents that it holds for; all of them by default.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, beta: float, sites: Sequence[str] | None = None) -> None:
        super().__init__()
        if not beta >= 0.0:
            raise ValueError(f"beta = {beta}: expected a weight of at least 0")
        self.beta = beta
        self.sites = sites

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and (self.sites is None or base_name(msg["name"]) in self.sites):
            msg["scale"] = msg["scale"] * self.beta


class mean_latents(Messenger):
    """Give every latent that would be drawn the mean of its conditional, and let what follows from it see
    the mean.
    """

    def _pyro_draw(self, msg: Any) -> None:
        msg["value"] = msg["args"][1].mean
        msg["done"] = True


class given_noise(Messenger):
    """Draw Gaussian latents from noise handed in: z = mean + standard deviation * noise.

    Args:
        noise: for each site standard normal numbers (..., T, N, L), or (..., N, L) for a sequence-level site.
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


class free_running(Messenger):
    """Generation mode: where a conditional looks back at the data, let it see the mean that the model gave
    that frame.

    Args:
        sites: names of the observed sites that this holds for.
    """

    def __init__(self, sites: Sequence[str] = ("x",)) -> None:
        super().__init__()
        self.sites = sites

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name in self.sites:
            msg["value"] = axis.expected(name)
            msg["done"] = True
