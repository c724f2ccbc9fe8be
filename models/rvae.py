r"""RVAE, recurrent VAE (Leglaive et al., "A recurrent variational autoencoder for speech enhancement", 2020;
networks as in Bie et al., 2021).

.. math:: p(x_{1:T}, z_{1:T}) = \prod_t p(z_t)\, p(x_t \mid z_{1:t}), \qquad p(z_t) = N(0, I),

or, in the non-causal model, p(x_t | z_{1:T}).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from models.core.sites import Sites
from models.core.time_axis import Parallel, TimeAxis
from models.dvae import DVAE, ModelSettings, standard_normal
from models.likelihoods.base import head
from models.nn.layers import MLP, Context, Recurrent
from models.structure.parents import Parents

__all__ = ["RVAE", "RVAESettings"]


@dataclass
class RVAESettings(ModelSettings):
    """Settings of RVAE.

    Attributes:
        causal: whether x_t depends on z_{1:t}, or on all z_{1:T}.
        z_h: widths from z_t to the LSTM.
        h_dim: width H of the LSTM, in each direction.
        h_layers: number of layers of the LSTM.
        h_x: widths of the decoder from h_t to x_t.
    """

    name: str = "rvae"
    causal: bool = True
    z_h: list[int] = field(default_factory=lambda: [32, 64])
    h_dim: int = 128
    h_layers: int = 1
    h_x: list[int] = field(default_factory=lambda: [256])


class RVAE(DVAE):
    """p(z_t) p(x_t | z_{1:t}), or p(z_t) p(x_t | z_{1:T})."""

    Settings = RVAESettings

    def __init__(self, settings: RVAESettings) -> None:
        super().__init__(settings)
        self.stepwise = settings.causal
        self.z_h = MLP(self.z_dim, settings.z_h)
        sizes = (self.z_h.out_dim, settings.h_dim, settings.h_layers)
        self.h = Recurrent(*sizes) if settings.causal else Context(*sizes)
        self.h_x = MLP(self.h.out_dim, settings.h_x)
        self.likelihood = head(settings, self.h_x.out_dim)

    @classmethod
    def parents(cls, settings: RVAESettings) -> Parents:
        return {"z": (), "x": ("z[:t+1]" if settings.causal else "z[:]",)}

    @classmethod
    def guide_path(cls, settings: RVAESettings) -> str:
        return "guides.rvae:CausalRVAEGuide" if settings.causal else "guides.rvae:NoncausalRVAEGuide"

    def step(self, t: TimeAxis) -> None:
        z = t.sample("z", self.prior())
        t.observe("x", self.decoder(t.recur(self.h, self.z_h(z))))

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        """The non-causal model, which has no step: all z, then a bidirectional LSTM over them, then all x."""
        t = Parallel(sites)
        z = t.sample("z", self.prior())
        t.observe("x", self.decoder(self.h(self.z_h(z), lengths)))

    def prior(self) -> dist.TorchDistribution:
        """p(z_t) = N(0, I): Bie et al. (2021), Eq. 4 and Table 1."""
        return standard_normal(self, self.z_dim)

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_{1:t}), or p(x_t | z_{1:T}): Bie et al. (2021), Eq. 4 and Table 1, from h_t, a function of them."""
        return self.likelihood(self.h_x(h))
