r"""The guide of HiT-DVAE and LigHT-DVAE (Lin et al., 2023, Eq. 4):

.. math:: q(w, z_{1:T} | x_{1:T}) = q(w | x_{1:T}) \prod_t q(z_t | x_{1:T}, w).

w is inferred from the final states of both directions of a bidirectional LSTM, each of which depends on all of x ("the
output at the last frame" of the paper, taken literally, has a backward half that depends on x_T only). Given w, all z_t
are drawn at once by a transformer encoder; the exact posterior of z_t also depends on z_{1:t-1}.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.attention import Encoder
from models.nn.layers import MLP, Context, GaussianHead

__all__ = ["HiTGuide", "HiTGuideSettings"]


@dataclass
class HiTGuideSettings(GuideSettings):
    """Settings of the guide of HiT-DVAE and LigHT-DVAE.

    Attributes:
        x: widths of the feature extractor of x_t.
        gw_dim: width of the bidirectional LSTM that w is inferred from.
        gw_layers: number of its layers.
        d_model: width of the transformer that z is inferred from.
        ff: width of its feed-forward networks.
        layers: number of its layers.
        dropout: dropout probability of each part of a layer; the paper specifies none.
    """

    x: list[int] = field(default_factory=lambda: [256])
    gw_dim: int = 512
    gw_layers: int = 2
    d_model: int = 256
    ff: int = 1024
    layers: int = 4
    dropout: float = 0.0


class HiTGuide(Guide):
    """q(w | x_{1:T}) q(z_t | x_{1:T}, w)."""

    Settings = HiTGuideSettings
    declared = {"w": ("x[:]",), "z": ("x[:]", "w")}

    def __init__(self, model: DVAE, settings: HiTGuideSettings) -> None:
        super().__init__(model)
        w_dim = model.sizes["w"]
        self.x = MLP(self.x_dim, settings.x)
        self.gw = Context(self.x.out_dim, settings.gw_dim, settings.gw_layers)
        self.w_head = GaussianHead(self.gw.out_dim, w_dim)
        sizes = (settings.d_model, settings.ff, settings.layers)
        self.encoder = Encoder(self.x.out_dim + w_dim, *sizes, settings.dropout)
        self.head = GaussianHead(settings.d_model, self.z_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x = self.x(self.input(sites.data["x"]))
        w = sites.once("w", self.sequence_posterior(self.gw.ends(x, lengths)))
        g: Tensor = self.encoder(concatenate(x, w), lengths)
        return g

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        t.sample("z", self.posterior(t.feature(encoded)))

    def sequence_posterior(self, g: Tensor) -> dist.TorchDistribution:
        """q(w | x_{1:T}), Eq. 5, from the final states of the LSTM."""
        return self.w_head(g)

    def posterior(self, g: Tensor) -> dist.TorchDistribution:
        """q(z_t | x_{1:T}, w), Eq. 6, from the encoder's output at frame t."""
        return self.head(g)
