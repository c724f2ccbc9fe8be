r"""SRNN, stochastic recurrent neural network (Fraccaro et al., "Sequential neural models with stochastic layers", 2016;
networks as in Bie et al., 2021).

.. math:: p(x_{1:T}, z_{1:T}) = \prod_t p(z_t \mid x_{1:t-1}, z_{t-1})\, p(x_t \mid x_{1:t-1}, z_t),

where the past of x enters through a deterministic recurrent network, h_t = LSTM(x_{1:t-1}).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.nn.layers import MLP, GaussianHead, Recurrent

__all__ = ["SRNN", "SRNNSettings"]


@dataclass
class SRNNSettings(ModelSettings):
    """Settings of SRNN.

    Attributes:
        x_h: widths from x_{t-1} to the LSTM.
        h_dim: width H of the LSTM.
        h_layers: number of layers of the LSTM.
        hz_z: widths of the prior from h_t and z_{t-1} to z_t.
        hz_x: widths of the decoder from h_t and z_t to x_t.
    """

    name: str = "srnn"
    x_h: list[int] = field(default_factory=lambda: [256])
    h_dim: int = 128
    h_layers: int = 1
    hz_z: list[int] = field(default_factory=lambda: [64, 32])
    hz_x: list[int] = field(default_factory=lambda: [256])


class SRNN(DVAE):
    """p(z_t | x_{1:t-1}, z_{t-1}) p(x_t | x_{1:t-1}, z_t)."""

    Settings = SRNNSettings
    paper_guide = "guides.srnn:SRNNGuide"
    declared = {"z": ("x[:t]", "z[t-1]"), "x": ("x[:t]", "z[t]")}

    def __init__(self, settings: SRNNSettings) -> None:
        super().__init__(settings)
        self.x_h = MLP(self.x_dim, settings.x_h)
        self.h = Recurrent(self.x_h.out_dim, settings.h_dim, settings.h_layers)
        self.hz_z = MLP(settings.h_dim + self.z_dim, settings.hz_z)
        self.prior_head = GaussianHead(self.hz_z.out_dim, self.z_dim)
        self.hz_x = MLP(settings.h_dim + self.z_dim, settings.hz_x)
        self.likelihood = head(settings, self.hz_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        h = t.recur(self.h, self.x_h(self.input(t.prev("x"))))
        z = t.sample("z", self.prior(h, t.prev("z")))
        t.observe("x", self.decoder(h, z))

    def prior(self, h: Tensor, z_before: Tensor) -> dist.TorchDistribution:
        """p(z_t | x_{1:t-1}, z_{t-1}): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.prior_head(self.hz_z(concatenate(h, z_before)))

    def decoder(self, h: Tensor, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}, z_t): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.likelihood(self.hz_x(concatenate(h, z)))
