r"""STORN, stochastic recurrent network (Bayer & Osendorfer, "Learning stochastic recurrent networks", 2014; networks
as in Bie et al., 2021).

.. math:: p(x_{1:T}, z_{1:T}) = \prod_t p(z_t)\, p(x_t \mid x_{1:t-1}, z_{1:t}), \qquad p(z_t) = N(0, I),

with one recurrent network over z_t and x_{t-1}.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings, standard_normal
from models.likelihoods.base import head
from models.nn.layers import MLP, Recurrent

__all__ = ["STORN", "STORNSettings"]


@dataclass
class STORNSettings(ModelSettings):
    """Settings of STORN.

    Attributes:
        z_h: widths from z_t to the LSTM.
        x_h: widths from x_{t-1} to the LSTM.
        h_dim: width H of the LSTM.
        h_layers: number of layers of the LSTM.
        h_x: widths of the decoder from h_t to x_t.
    """

    name: str = "storn"
    z_h: list[int] = field(default_factory=lambda: [32, 64])
    x_h: list[int] = field(default_factory=lambda: [256])
    h_dim: int = 128
    h_layers: int = 1
    h_x: list[int] = field(default_factory=lambda: [256])


class STORN(DVAE):
    """p(z_t) p(x_t | x_{1:t-1}, z_{1:t})."""

    Settings = STORNSettings
    paper_guide = "guides.storn:STORNGuide"
    declared = {"z": (), "x": ("x[:t]", "z[:t+1]")}

    def __init__(self, settings: STORNSettings) -> None:
        super().__init__(settings)
        self.z_h = MLP(self.z_dim, settings.z_h)
        self.x_h = MLP(self.x_dim, settings.x_h)
        self.h = Recurrent(self.z_h.out_dim + self.x_h.out_dim, settings.h_dim, settings.h_layers)
        self.h_x = MLP(settings.h_dim, settings.h_x)
        self.likelihood = head(settings, self.h_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        z = t.sample("z", self.prior())
        h = t.recur(self.h, self.z_h(z), self.x_h(self.input(t.prev("x"))))
        t.observe("x", self.decoder(h))

    def prior(self) -> dist.TorchDistribution:
        """p(z_t) = N(0, I): Bie et al. (2021), Eq. 4 and Table 1."""
        return standard_normal(self, self.z_dim)

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}, z_{1:t}): Bie et al. (2021), Eq. 4 and Table 1, from h_t, which depends on both."""
        return self.likelihood(self.h_x(h))
