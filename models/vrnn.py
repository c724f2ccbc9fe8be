r"""VRNN, variational recurrent neural network (Chung et al., "A recurrent latent variable model for sequential data",
2015; networks as in Bie et al., 2021).

.. math:: p(x_{1:T}, z_{1:T}) = \prod_t p(z_t \mid x_{1:t-1}, z_{1:t-1})\, p(x_t \mid x_{1:t-1}, z_{1:t}),

where both depend on the past through h_t, the state of one recurrent network after frame t - 1; h_1 = 0.
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

__all__ = ["VRNN", "VRNNSettings"]


@dataclass
class VRNNSettings(ModelSettings):
    """Settings of VRNN.

    Attributes:
        x: widths of the feature extractor of x_t.
        z: widths of the feature extractor of z_t.
        h_dim: width H of the LSTM.
        h_layers: number of layers of the LSTM.
        h_z: widths of the prior from h_t to z_t.
        hz_x: widths of the decoder from z_t's features and h_t to x_t.
    """

    name: str = "vrnn"
    x: list[int] = field(default_factory=lambda: [256])
    z: list[int] = field(default_factory=lambda: [32, 64])
    h_dim: int = 128
    h_layers: int = 1
    h_z: list[int] = field(default_factory=lambda: [64, 32])
    hz_x: list[int] = field(default_factory=lambda: [256])


class VRNN(DVAE):
    """p(z_t | x_{1:t-1}, z_{1:t-1}) p(x_t | x_{1:t-1}, z_{1:t})."""

    Settings = VRNNSettings
    paper_guide = "guides.vrnn:VRNNGuide"
    declared = {"z": ("x[:t]", "z[:t]"), "x": ("x[:t]", "z[:t+1]")}

    def __init__(self, settings: VRNNSettings) -> None:
        super().__init__(settings)
        self.x = MLP(self.x_dim, settings.x)
        self.z = MLP(self.z_dim, settings.z)
        self.h = Recurrent(self.x.out_dim + self.z.out_dim, settings.h_dim, settings.h_layers)
        self.h_z = MLP(settings.h_dim, settings.h_z)
        self.prior_head = GaussianHead(self.h_z.out_dim, self.z_dim)
        self.hz_x = MLP(self.z.out_dim + settings.h_dim, settings.hz_x)
        self.likelihood = head(settings, self.hz_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        h = t.recur(self.h, self.x(self.input(t.prev("x"))), self.z(t.prev("z")), lag=True)
        z = t.sample("z", self.prior(h))
        t.observe("x", self.decoder(self.z(z), h))

    def prior(self, h: Tensor) -> dist.TorchDistribution:
        """p(z_t | x_{1:t-1}, z_{1:t-1}): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.prior_head(self.h_z(h))

    def decoder(self, z: Tensor, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}, z_{1:t}): Bie et al. (2021), Eq. 4 and Table 1, from the features of z_t and h_t."""
        return self.likelihood(self.hz_x(concatenate(z, h)))
