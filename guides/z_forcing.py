r"""Z-Forcing's guide, and the auxiliary cost of the paper (Goyal et al., 2017).

.. math::
    q(z \mid x) &= \prod_t q(z_t \mid h_{t-1}, b_t), \qquad b_t = \mathrm{LSTM}(x_t, b_{t+1}) \tag{1} \\
    q(z_t \mid h_{t-1}, b_t) &= N(\mu(h_{t-1}, b_t), \sigma(h_{t-1}, b_t)^2) \tag{2}

(the paper's inference model; the numbers are of this module), with h the model's recurrent state and b the state of a
backward LSTM. In training, an auxiliary cost can make z_t predict b_t, and with it the future of x:

.. math:: \alpha \sum_t \log p(\mathrm{sg}(b_t) \mid z_t), \qquad
    p(b_t \mid z_t) = N(\tanh m(z_t), e^{\ell(z_t)}), \tag{3}

is added to the bound (sg: stop-gradient on b, so that b does not become trivial to predict; the gradient flows through
z_t). `inference.handlers.auxiliary_cost.auxiliary_cost` adds it. As in the authors' code
(github.com/sordonia/zforcing), \ell is clamped to -8 .. 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from guides.core.chain import MemoryChain, shared_chain
from guides.core.guide import Guide, GuideSettings
from models.core.effects import auxiliary
from models.core.sites import Sites
from models.core.tensors import concatenate, normal, shift
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, Context, GaussianHead
from models.z_forcing import ZForcing

__all__ = ["ZForcingGuide", "ZForcingGuideSettings"]

MOST = 8.0
"""Bound on the absolute log-variances of p(b_t | z_t)."""


@dataclass
class ZForcingGuideSettings(GuideSettings):
    """Settings of Z-Forcing's guide.

    Attributes:
        b_dim: width of the backward LSTM.
        b_layers: number of its layers.
        hb_z: widths from h_{t-1} and b_t to z_t.
        auxiliary: weight alpha of log p(b_t | z_t) in training; 0 disables it and omits its network.
        z_b: widths from z_t to b_t.
    """

    b_dim: int = 128
    b_layers: int = 1
    hb_z: list[int] = field(default_factory=lambda: [64])
    auxiliary: float = 0.0
    z_b: list[int] = field(default_factory=lambda: [64])


class ZForcingGuide(Guide):
    """q(z_t | z_{1:t-1}, x_{1:t-2}, x_{t:T})."""

    Settings = ZForcingGuideSettings
    declared = {"z": ("z[:t]", "x[:t-1]", "x[t:]")}

    def __init__(self, model: DVAE, settings: ZForcingGuideSettings) -> None:
        super().__init__(model)
        if not settings.auxiliary >= 0.0:
            raise UserError(f"guide.auxiliary={settings.auxiliary}: expected a weight of at least 0.")
        ours = cast(ZForcing, model)
        self.x_h, self.z_h, self.h = ours.x_h, ours.z_h, ours.h
        self.b = Context(self.x_h.out_dim, settings.b_dim, settings.b_layers, "future")
        self.hb_z = MLP(self.h.out_dim + settings.b_dim, settings.hb_z)
        self.head = GaussianHead(self.hb_z.out_dim, self.z_dim)
        self.auxiliary = settings.auxiliary
        if settings.auxiliary > 0.0:
            self.z_b = MLP(self.z_dim, settings.z_b)
            self.b_head = nn.Linear(self.z_b.out_dim, 2 * settings.b_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        """[b_t; features of x_{t-2}]."""
        x = sites.data["x"]
        b: Tensor = self.b(self.x_h(self.input(x)), lengths)
        if self.auxiliary > 0.0:
            auxiliary("z", lambda z: sites.zeroed(self.predicted_b(z).log_prob(b.detach())[..., None])[..., 0])
        return concatenate(b, shift(self.x_h(self.input(shift(x)))))

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        b, x = t.feature(encoded).split([self.b.out_dim, self.x_h.out_dim], dim=-1)
        before = t.recur(self.h, x, self.z_h(t.prev("z")), lag=True)
        t.sample("z", self.posterior(before, b))

    def chain(self, encoded: Tensor) -> MemoryChain | None:
        b, x = encoded.split([self.b.out_dim, self.x_h.out_dim], dim=-1)
        return shared_chain(self.h, x, self.z_h.affine, [*self.hb_z.affine, self.head.affine], b, h_first=True)

    def posterior(self, before: Tensor, b: Tensor) -> dist.TorchDistribution:
        """q(z_t | h_{t-1}, b_t): Eq. 2 of this module."""
        return self.head(self.hb_z(concatenate(before, b)))

    def predicted_b(self, z: Tensor) -> dist.TorchDistribution:
        """p(b_t | z_t): Eq. 3 of this module; its Gaussian as in the authors' code."""
        mean, log_variance = self.b_head(self.z_b(z)).chunk(2, dim=-1)
        return normal(mean.tanh(), log_variance.clamp(-MOST, MOST))
