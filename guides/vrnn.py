r"""VRNN's guide: q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | z_{1:t-1}, x_{1:t}).

It shares the model's feature extractors and recurrent network (Chung et al., 2015). The true posterior sees the future
of x too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pyro.distributions as dist
from torch import Tensor

from guides.guide import Guide, GuideSettings
from models.dvae import DVAE
from models.networks import MLP, GaussianHead, concatenate, shift
from models.sites import Sites
from models.structure import Parents
from models.time_axis import TimeAxis
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
    """q(z_t | z_{1:t-1}, x_{1:t}) = N of MLP([x's features; h_t]), h_t the model's own."""

    Settings = VRNNGuideSettings

    def __init__(self, model: DVAE, settings: VRNNGuideSettings) -> None:
        super().__init__(model)
        vrnn = cast(VRNN, model)
        self.x, self.z, self.h = vrnn.x, vrnn.z, vrnn.h
        self.xh_z = MLP(self.x.out_dim + self.h.out_dim, settings.xh_z)
        self.head = GaussianHead(self.xh_z.out_dim, self.z_dim)

    @classmethod
    def parents(cls, settings: VRNNGuideSettings, latents: Sequence[str] = ("z",)) -> Parents:
        return {"z": ("z[:t]", "x[:t+1]")}

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x: Tensor = self.x(self.input(sites.data["x"]))
        return x

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        before = t.feature(shift(encoded))
        h = t.recur(self.h, before, self.z(t.prev("z")), lag=True)
        t.sample("z", self.posterior(t.feature(encoded), h))

    def posterior(self, x: Tensor, h: Tensor) -> dist.TorchDistribution:
        """q(z_t | z_{1:t-1}, x_{1:t}), from the features of x_t and h_t."""
        distribution: dist.TorchDistribution = self.head(self.xh_z(concatenate(x, h)))
        return distribution
