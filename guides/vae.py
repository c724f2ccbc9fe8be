r"""The VAE's guide: q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | x_t)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, GaussianHead

__all__ = ["VAEGuide", "VAEGuideSettings"]


@dataclass
class VAEGuideSettings(GuideSettings):
    """Settings of the VAE's guide.

    Attributes:
        x_z: widths of the encoder from x_t to z_t.
    """

    x_z: list[int] = field(default_factory=lambda: [256, 128, 64, 32])


class VAEGuide(Guide):
    """q(z_t | x_t)."""

    Settings = VAEGuideSettings
    declared = {"z": ("x[t]",)}

    def __init__(self, model: DVAE, settings: VAEGuideSettings) -> None:
        super().__init__(model)
        self.x_z = MLP(self.x_dim, settings.x_z)
        self.head = GaussianHead(self.x_z.out_dim, self.z_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        out: Tensor = self.x_z(self.input(sites.data["x"]))
        return out

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        t.sample("z", self.posterior(t.feature(encoded)))

    def posterior(self, h: Tensor) -> dist.TorchDistribution:
        """q(z_t | x_t): Bie et al. (2021), Eq. 5, from the encoded x_t."""
        return self.head(h)
