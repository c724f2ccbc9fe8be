r"""DSAE's guide (Li & Mandt, 2018, as in Bie et al., 2021):

.. math::
    q(v, z_{1:T} \mid x_{1:T}) &= q(v \mid x_{1:T}) \prod_t q(z_t \mid v, x_{1:T}) \tag{1} \\
    q(v \mid x_{1:T}) &= N(\mu(g), \sigma(g)^2), \quad g = \text{the final states of an LSTM over } x_{1:T} \tag{2}

(the numbers are of this module). Given v, all z_t are drawn at once; the exact posterior of z_t also depends on
z_{1:t-1}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pyro.distributions as dist
from torch import Tensor

from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dsae import DSAE
from models.dvae import DVAE
from models.nn.layers import MLP, Context, GaussianHead, Recurrent

__all__ = ["DSAEGuide", "DSAEGuideSettings"]


@dataclass
class DSAEGuideSettings(GuideSettings):
    """Settings of DSAE's guide.

    Attributes:
        x: widths of the feature extractor of x_t.
        gv_dim: width of the bidirectional LSTM that v is inferred from.
        gv_layers: number of its layers.
        g_v: widths from its two final states to v.
        gxv_dim: width of the bidirectional LSTM over x and v.
        gxv_layers: number of its layers.
        xv_g: widths from the features of x_t and v to that LSTM.
        g_r: widths from it to the plain recurrent network.
        r_dim: width of the plain recurrent network that z_t is inferred from.
        r_layers: number of its layers.
    """

    x: list[int] = field(default_factory=lambda: [256])
    gv_dim: int = 128
    gv_layers: int = 1
    g_v: list[int] = field(default_factory=lambda: [64, 32])
    xv_g: list[int] = field(default_factory=lambda: [256])
    gxv_dim: int = 128
    gxv_layers: int = 1
    g_r: list[int] = field(default_factory=lambda: [64])
    r_dim: int = 32
    r_layers: int = 1


class DSAEGuide(Guide):
    """q(v | x_{1:T}) q(z_t | v, x_{1:T})."""

    Settings = DSAEGuideSettings
    declared = {"v": ("x[:]",), "z": ("x[:]", "v")}

    def __init__(self, model: DVAE, settings: DSAEGuideSettings) -> None:
        super().__init__(model)
        v_dim = cast(DSAE, model).v_dim
        self.x = MLP(self.x_dim, settings.x)
        self.gv = Context(self.x.out_dim, settings.gv_dim, settings.gv_layers)
        self.g_v = MLP(self.gv.out_dim, settings.g_v)
        self.v_head = GaussianHead(self.g_v.out_dim, v_dim)
        self.xv_g = MLP(self.x.out_dim + v_dim, settings.xv_g)
        self.gxv = Context(self.xv_g.out_dim, settings.gxv_dim, settings.gxv_layers)
        self.g_r = MLP(self.gxv.out_dim, settings.g_r)
        self.r = Recurrent(self.g_r.out_dim, settings.r_dim, settings.r_layers, cell="rnn")
        self.head = GaussianHead(settings.r_dim, self.z_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x = self.x(self.input(sites.data["x"]))
        v = sites.once("v", self.sequence_posterior(self.gv.ends(x, lengths)))
        g = self.gxv(self.xv_g(concatenate(x, v)), lengths)
        r: Tensor = self.r(self.g_r(g))[0]
        return r

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        t.sample("z", self.posterior(t.feature(encoded)))

    def sequence_posterior(self, g: Tensor) -> dist.TorchDistribution:
        """q(v | x_{1:T}): Eq. 2 of this module; not detailed in Bie et al. (2021)."""
        return self.v_head(self.g_v(g))

    def posterior(self, r: Tensor) -> dist.TorchDistribution:
        """q(z_t | v, x_{1:T}): Bie et al. (2021), Eq. 5, from a recurrent network over them."""
        return self.head(r)
