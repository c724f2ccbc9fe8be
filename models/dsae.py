r"""DSAE, disentangled sequential autoencoder (Li & Mandt, 2018; networks as in Bie et al., 2021).

.. math::
    p(x_{1:T}, z_{1:T}, v) &= p(v) \prod_t p(z_t \mid z_{1:t-1})\, p(x_t \mid z_t, v) \tag{1} \\
    p(v) &= N(0, I) \tag{2}

(Eq. 4 of Bie et al. given v, which they do not detail; the numbers are of this module), where v represents what is
constant in a sequence, and z_t what varies over time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings, standard_normal
from models.likelihoods.base import head
from models.nn.layers import MLP, GaussianHead, Recurrent

__all__ = ["DSAE", "DSAESettings"]


@dataclass
class DSAESettings(ModelSettings):
    """Settings of DSAE.

    Attributes:
        v_dim: size of the latent of a sequence.
        h_dim: width of the LSTM of the prior, over z_{1:t-1}.
        h_layers: number of layers of the LSTM.
        vz_x: widths of the decoder from v and z_t to x_t.
    """

    name: str = "dsae"
    v_dim: int = 16
    h_dim: int = 32
    h_layers: int = 1
    vz_x: list[int] = field(default_factory=lambda: [32, 64, 128, 256])


class DSAE(DVAE):
    """p(v) p(z_t | z_{1:t-1}) p(x_t | z_t, v)."""

    Settings = DSAESettings
    paper_guide = "guides.dsae:DSAEGuide"
    latents = ("v", "z")
    declared = {"v": (), "z": ("z[:t]",), "x": ("z[t]", "v")}

    def __init__(self, settings: DSAESettings) -> None:
        super().__init__(settings)
        self.v_dim = settings.v_dim
        self.h = Recurrent(self.z_dim, settings.h_dim, settings.h_layers)
        self.prior_head = GaussianHead(settings.h_dim, self.z_dim)
        self.vz_x = MLP(self.v_dim + self.z_dim, settings.vz_x)
        self.likelihood = head(settings, self.vz_x.out_dim)

    @property
    def sizes(self) -> dict[str, int]:
        return super().sizes | {"v": self.v_dim}

    def step(self, t: TimeAxis) -> None:
        v = t.once("v", self.sequence_prior())
        z = t.sample("z", self.prior(t.recur(self.h, t.prev("z"))))
        t.observe("x", self.decoder(v, z))

    def sequence_prior(self) -> dist.TorchDistribution:
        """p(v) = N(0, I): Eq. 2 of this module; Li & Mandt (2018) call v f."""
        return standard_normal(self, self.v_dim)

    def prior(self, h: Tensor) -> dist.TorchDistribution:
        """p(z_t | z_{1:t-1}): Bie et al. (2021), Eq. 4 and Table 1, from h_t, the state after z_{0:t-1}, z_0 = 0."""
        return self.prior_head(h)

    def decoder(self, v: Tensor, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_t, v): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.likelihood(self.vz_x(concatenate(v, z)))
