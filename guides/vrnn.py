r"""VRNN's guide: q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | z_{1:t-1}, x_{1:t}).

It shares the model's feature extractors and recurrent network (Chung et al., 2015). The exact posterior also depends on
the future of x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pyro.distributions as dist
from torch import Tensor

from guides.core.chain import MemoryChain, shared_chain
from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.tensors import concatenate, shift
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, GaussianHead
from models.vrnn import VRNN

__all__ = ["VRNNGuide", "VRNNGuideSettings"]


@dataclass
class VRNNGuideSettings(GuideSettings):
    """Settings of VRNN's guide.

    Attributes:
        xh_z: widths from the features of x_t and h_t to z_t.
    """

    xh_z: list[int] = field(default_factory=lambda: [64, 32])


class VRNNGuide(Guide):
    """q(z_t | z_{1:t-1}, x_{1:t}) = N of MLP([x's features; h_t]), h_t the state of the model's recurrent network."""

    Settings = VRNNGuideSettings
    declared = {"z": ("z[:t]", "x[:t+1]")}

    def __init__(self, model: DVAE, settings: VRNNGuideSettings) -> None:
        super().__init__(model)
        vrnn = cast(VRNN, model)
        self.x, self.z, self.h = vrnn.x, vrnn.z, vrnn.h
        self.xh_z = MLP(self.x.out_dim + self.h.out_dim, settings.xh_z)
        self.head = GaussianHead(self.xh_z.out_dim, self.z_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x: Tensor = self.x(self.input(sites.data["x"]))
        return x

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        before = t.feature(shift(encoded))
        h = t.recur(self.h, before, self.z(t.prev("z")), lag=True)
        t.sample("z", self.posterior(t.feature(encoded), h))

    def chain(self, encoded: Tensor) -> MemoryChain | None:
        layers = [*self.xh_z.affine, self.head.affine]
        return shared_chain(self.h, shift(encoded), self.z.affine, layers, encoded, h_first=False)

    def posterior(self, x: Tensor, h: Tensor) -> dist.TorchDistribution:
        """q(z_t | z_{1:t-1}, x_{1:t}): Bie et al. (2021), Eq. 5, from the features of x_t and h_t."""
        return self.head(self.xh_z(concatenate(x, h)))
