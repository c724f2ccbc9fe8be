r"""Guides of ladders of latents, with two ways to combine the inferred Gaussian and the prior.

For layer l, let \hat q be a Gaussian from the features of the data and the latents above, and p the prior given the
latents above:

.. math:: \mathrm{independent:}\; q = \hat q, \qquad
    \mathrm{precision:}\; q \propto \hat q\, p, \quad
    \frac{1}{s^2} = \frac{1}{\hat s^2} + \frac{1}{s_p^2}, \quad
    m = s^2 \Big(\frac{\hat m}{\hat s^2} + \frac{m_p}{s_p^2}\Big).

The second is used by the ladder VAE (Sonderby et al., "Ladder variational autoencoders", 2016) and STCN, the first by
MS-STCN. Both are available for both models: ``--guide independent``, ``--guide precision``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist

from guides.core.guide import Guide, GuideSettings
from models.dvae import DVAE
from models.structure.parents import Parents

__all__ = ["LadderGuide", "LadderGuideSettings", "precision_weighted"]


def precision_weighted(a: dist.TorchDistribution, b: dist.TorchDistribution) -> dist.TorchDistribution:
    """The Gaussian proportional to the product of the densities of two diagonal Gaussians."""
    of_a, of_b = a.variance.reciprocal(), b.variance.reciprocal()
    variance = (of_a + of_b).reciprocal()
    return dist.Independent(dist.Normal(variance * (of_a * a.mean + of_b * b.mean), variance.sqrt()), 1)


@dataclass
class LadderGuideSettings(GuideSettings):
    """Settings of a ladder guide: none of its own, its sizes are those of the model."""


class LadderGuide(Guide):
    """q(z^l | x, z above), on the features of the model's ladder.

    Class attributes that a subclass sets:
        paper: the variant of its paper, "independent" or "precision".
    """

    Settings = LadderGuideSettings
    paper: ClassVar[str]

    def __init__(self, model: DVAE, settings: LadderGuideSettings) -> None:
        super().__init__(model)
        self.weighted = (self.paper if settings.name == "paper" else settings.name) == "precision"

    @classmethod
    def parents(cls, settings: Any, latents: Sequence[str] = ("layer1",)) -> Parents:
        return {site: ("x[:t+1]", *(f"{m}[t]" for m in latents[:i])) for i, site in enumerate(latents)}
