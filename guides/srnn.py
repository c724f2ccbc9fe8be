r"""SRNN's guide: q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | z_{t-1}, x_{1:T}).

It shares the model's recurrent network over the past of x, and conditions on the same variables as the exact posterior
(Fraccaro et al., 2016, without their residual means).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import linear

from guides.core.chain import Chain
from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.tensors import concatenate, shift
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, Context, GaussianHead
from models.srnn import SRNN

__all__ = ["SRNNGuide", "SRNNGuideSettings"]


@dataclass
class SRNNGuideSettings(GuideSettings):
    """Settings of SRNN's guide.

    Attributes:
        hx_g: widths from h_t and x_t to the backward LSTM.
        g_dim: width of that LSTM.
        g_layers: number of its layers.
        gz_z: widths from g_t and z_{t-1} to z_t.
    """

    hx_g: list[int] = field(default_factory=lambda: [256])
    g_dim: int = 128
    g_layers: int = 1
    gz_z: list[int] = field(default_factory=lambda: [64, 32])


class SRNNGuide(Guide):
    """q(z_t | z_{t-1}, x_{1:T}) = N of MLP([g_t; z_{t-1}]), g_t an LSTM over h_{t:T} and x_{t:T}."""

    Settings = SRNNGuideSettings
    declared = {"z": ("z[t-1]", "x[:]")}

    def __init__(self, model: DVAE, settings: SRNNGuideSettings) -> None:
        super().__init__(model)
        srnn = cast(SRNN, model)
        self.x_h, self.h = srnn.x_h, srnn.h
        self.hx_g = MLP(self.h.out_dim + self.x_dim, settings.hx_g)
        self.g = Context(self.hx_g.out_dim, settings.g_dim, settings.g_layers, "future")
        self.gz_z = MLP(settings.g_dim + self.z_dim, settings.gz_z)
        self.head = GaussianHead(self.gz_z.out_dim, self.z_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x = sites.data["x"]
        h, _ = self.h(self.x_h(self.input(shift(x))))
        g: Tensor = self.g(self.hx_g(concatenate(h, self.input(x))), lengths)
        return g

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        t.sample("z", self.posterior(t.feature(encoded), t.prev("z")))

    def chain(self, encoded: Tensor) -> Chain:
        first, *after = [*self.gz_z.affine, self.head.affine]
        of_g, of_z = first.weight.split([self.g.out_dim, self.z_dim], dim=1)
        return Chain(linear(encoded, of_g, first.bias), [], of_z, after)

    def posterior(self, g: Tensor, z_before: Tensor) -> dist.TorchDistribution:
        """q(z_t | z_{t-1}, x_{1:T}): Bie et al. (2021), Eq. 5."""
        return self.head(self.gz_z(concatenate(g, z_before)))
