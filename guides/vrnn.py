r"""VRNN's guide: q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | z_{1:t-1}, x_{1:t}).

It shares the model's feature extractors and recurrent network (Chung et al., 2015). The exact posterior also depends on
the future of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import linear

from guides.core.chain import MemoryChain, lstm_parts
from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.tensors import concatenate, shift
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, GaussianHead
from models.structure.parents import Parents
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

    def chain(self, encoded: Tensor) -> MemoryChain | None:
        lstm = lstm_parts(self.h)
        if lstm is None:
            return None
        weight_in, weight_h, bias = lstm
        of_x, of_z = weight_in.tensor_split([self.x.out_dim], dim=1)
        first, *after = [*self.xh_z.affine, self.head.affine]
        from_x, from_h = first.weight.tensor_split([self.x.out_dim], dim=1)
        return MemoryChain(
            gates=linear(shift(encoded), of_x, bias),
            before=self.z.affine,
            weight_in=of_z,
            weight_h=weight_h,
            injected=linear(encoded, from_x, first.bias),
            weight=from_h,
            after=after,
            lag=True,
        )

    def posterior(self, x: Tensor, h: Tensor) -> dist.TorchDistribution:
        """q(z_t | z_{1:t-1}, x_{1:t}): Bie et al. (2021), Eq. 5, from the features of x_t and h_t."""
        return self.head(self.xh_z(concatenate(x, h)))
