r"""The DKF's guide, which conditions on the same variables as the exact posterior: q(z_{1:T} | x_{1:T}) =
\prod_t q(z_t | z_{t-1}, x_{t:T}).

It is the DKS of Krishnan et al. (2017), with the networks of the benchmark paper (Bie et al., 2021):

.. math:: e_t = \tanh(A\,\mathrm{MLP}(z_{t-1})), \quad g_t = \mathrm{LSTM}^{\leftarrow}(\mathrm{MLP}(x))_t,
\quad
    q(z_t | \cdot) = N \text{ of } \mathrm{MLP}((e_t + g_t) / 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import linear

from guides.core.chain import Chain
from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, Context, GaussianHead
from models.structure.parents import Parents

__all__ = ["DKFGuide", "DKFGuideSettings"]


@dataclass
class DKFGuideSettings(GuideSettings):
    """Settings of the DKF's guide.

    Attributes:
        x_g: widths from x_t to the input of the LSTM.
        g_dim: width H of the LSTM.
        g_layers: number of layers of the LSTM.
        bidirectional: whether the LSTM also covers the past of x.
        z_g: widths from z_{t-1} to e_t, without the last one, which is H.
        g_z: widths from the mean of e_t and g_t to z_t.
    """

    x_g: list[int] = field(default_factory=lambda: [256])
    g_dim: int = 128
    g_layers: int = 1
    bidirectional: bool = False
    z_g: list[int] = field(default_factory=lambda: [32, 64])
    g_z: list[int] = field(default_factory=lambda: [64, 32])


class DKFGuide(Guide):
    """q(z_t | z_{t-1}, x_{t:T}), or q(z_t | z_{t-1}, x_{1:T}) with a bidirectional LSTM."""

    Settings = DKFGuideSettings

    def __init__(self, model: DVAE, settings: DKFGuideSettings) -> None:
        super().__init__(model)
        sees = "all" if settings.bidirectional else "future"
        self.x_g = MLP(self.x_dim, settings.x_g)
        self.g = Context(self.x_g.out_dim, settings.g_dim, settings.g_layers, sees)
        self.z_g = MLP(self.z_dim, [*settings.z_g, settings.g_dim])
        self.g_z = MLP(settings.g_dim, settings.g_z)
        self.head = GaussianHead(self.g_z.out_dim, self.z_dim)
        self.summands = 1 + self.g.out_dim // settings.g_dim

    @classmethod
    def parents(cls, settings: DKFGuideSettings, latents: Sequence[str] = ("z",)) -> Parents:
        return {"z": ("z[t-1]", "x[:]" if settings.bidirectional else "x[t:]")}

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        g = self.g(self.x_g(self.input(sites.data["x"])), lengths)
        directions: Tensor = g.unflatten(-1, (self.summands - 1, -1)).sum(-2)
        return directions

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        t.sample("z", self.posterior(t.prev("z"), t.feature(encoded)))

    def chain(self, encoded: Tensor) -> Chain:
        first, *after = [*self.g_z.affine, self.head.affine]
        weight = first.weight / self.summands
        return Chain(linear(encoded, weight, first.bias), self.z_g.affine, weight, after)

    def posterior(self, z_before: Tensor, g: Tensor) -> dist.TorchDistribution:
        """q(z_t | z_{t-1}, x_{t:T}): Bie et al. (2021), Eq. 5, from z_{t-1} and the summary g_t of x_{t:T}."""
        h = (self.z_g(z_before) + g) / self.summands
        return self.head(self.g_z(h))
