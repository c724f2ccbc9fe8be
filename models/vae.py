r"""VAE: independent frames (Kingma & Welling, 2014; configured as in Bie et al., "A benchmark of dynamical variational
autoencoders applied to speech spectrogram modeling", 2021).

.. math:: p(x_{1:T}, z_{1:T}) = \prod_t p(z_t)\, p(x_t \mid z_t), \qquad p(z_t) = N(0, I).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings, standard_normal
from models.likelihoods.base import head
from models.nn.layers import MLP

__all__ = ["VAE", "VAESettings"]


@dataclass
class VAESettings(ModelSettings):
    """Settings of the VAE.

    Attributes:
        z_x: widths of the decoder from z_t to x_t.
    """

    name: str = "vae"
    z_x: list[int] = field(default_factory=lambda: [32, 64, 128, 256])


class VAE(DVAE):
    """p(z_t) p(x_t | z_t)."""

    Settings = VAESettings
    paper_guide = "guides.vae:VAEGuide"
    declared = {"z": (), "x": ("z[t]",)}

    def __init__(self, settings: VAESettings) -> None:
        super().__init__(settings)
        self.z_x = MLP(self.z_dim, settings.z_x)
        self.likelihood = head(settings, self.z_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        z = t.sample("z", self.prior())
        t.observe("x", self.decoder(z))

    def prior(self) -> dist.TorchDistribution:
        """p(z_t) = N(0, I): Bie et al. (2021), Eq. 4 and Table 1."""
        return standard_normal(self, self.z_dim)

    def decoder(self, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_t): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.likelihood(self.z_x(z))
