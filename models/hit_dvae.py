r"""HiT-DVAE, hierarchical transformer DVAE (Bie et al., "HiT-DVAE: human motion generation via hierarchical transformer
dynamical VAE", 2022; for speech as in Lin et al., 2023).

.. math:: p(x_{1:T}, z_{1:T}, w) = p(w) \prod_t p(z_t \mid x_{1:t-1}, z_{1:t-1}, w)\, p(x_t \mid x_{1:t-1}, z_{1:t}, w),

each conditional of z_t and x_t computed by a transformer decoder of its own. For z_t queries come from [x_{0:t-1}; w],
keys and values of the cross-attention from z_{0:t-1}; for x_t queries come from [z_{1:t}; w], keys and values from
x_{0:t-1}; x_0 = 0 and z_0 = 0. `models.light_dvae` has one decoder for both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.fields import one_of
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings, standard_normal
from models.likelihoods.base import head
from models.nn.attention import Decoder, layers
from models.nn.layers import MLP, GaussianHead

__all__ = ["HiTDVAE", "HiTDVAESettings", "HierarchicalTransformer"]


@dataclass
class HiTDVAESettings(ModelSettings):
    """Settings of HiT-DVAE.

    Attributes:
        w_dim: size of the latent of a sequence.
        x: widths of the feature extractor of x_t.
        d_model: width of the transformers.
        ff: width of their feed-forward networks.
        layers: number of layers of each.
        dropout: dropout probability of each part of a layer; the paper specifies none.
        variant: "standard"; "inv_s": in the decoder of x_t, queries come from the past of x, and keys and values from
            [z; w]; "inv_s_nr": also without its residual connections (the ablations of Lin et al., 2023, Table 2).
    """

    name: str = "hit_dvae"
    w_dim: int = 32
    x: list[int] = field(default_factory=lambda: [256])
    d_model: int = 256
    ff: int = 1024
    layers: int = 4
    dropout: float = 0.0
    variant: str = one_of("standard", "inv_s", "inv_s_nr")


class HierarchicalTransformer(DVAE):
    """What HiT-DVAE and LigHT-DVAE share: p(w), the decoder of x_t, and the last layers of both conditionals."""

    Settings = HiTDVAESettings
    paper_guide = "guides.hit_dvae:HiTGuide"
    declared = {"w": (), "z": ("x[:t]", "z[:t]", "w"), "x": ("x[:t]", "z[:t+1]", "w")}
    latents = ("w", "z")
    defaults = {**DVAE.defaults, "optim.lr": 5e-4, "optim.warmup_steps": 200}

    def __init__(self, settings: HiTDVAESettings) -> None:
        super().__init__(settings)
        self.w_dim = settings.w_dim
        self.inverted = settings.variant != "standard"
        self.x = MLP(self.x_dim, settings.x)
        self.x_d = nn.Linear(self.x.out_dim, settings.d_model)
        self.zw_d = nn.Linear(self.z_dim + self.w_dim, settings.d_model)
        self.layers = layers(settings.layers, settings.d_model, settings.ff, crossing=True, dropout=settings.dropout)
        self.x_decoder = Decoder(self.layers, settings.d_model, residual=settings.variant != "inv_s_nr")
        self.prior_head = GaussianHead(settings.d_model, self.z_dim)
        self.likelihood = head(settings, settings.d_model)

    @property
    def sizes(self) -> dict[str, int]:
        return super().sizes | {"w": self.w_dim}

    def h_of_x(self, t: TimeAxis, zw: Tensor, x_before: Tensor) -> Tensor:
        """The output of the decoder of x_t from the streams [z_{1:t}; w], the query, and x_{0:t-1}, the key."""
        query, key = (x_before, zw) if self.inverted else (zw, x_before)
        return t.recur(self.x_decoder, query, key)

    def sequence_prior(self) -> dist.TorchDistribution:
        """p(w) = N(0, I): Lin et al. (2023), below Eq. 3."""
        return standard_normal(self, self.w_dim)

    def prior(self, h: Tensor) -> dist.TorchDistribution:
        """p(z_t | x_{1:t-1}, z_{1:t-1}, w): Lin et al. (2023), Eq. 3, from the output h_t of its decoder."""
        return self.prior_head(h)

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}, z_{1:t}, w): Lin et al. (2023), Eq. 2, from the output h_t of its decoder."""
        return self.likelihood(h)


class HiTDVAE(HierarchicalTransformer):
    """p(w) p(z_t | x_{1:t-1}, z_{1:t-1}, w) p(x_t | x_{1:t-1}, z_{1:t}, w), by two decoders."""

    def __init__(self, settings: HiTDVAESettings) -> None:
        super().__init__(settings)
        self.xw_d = nn.Linear(self.x.out_dim + self.w_dim, settings.d_model)
        self.z_d = nn.Linear(self.z_dim, settings.d_model)
        self.z_layers = layers(settings.layers, settings.d_model, settings.ff, crossing=True, dropout=settings.dropout)
        self.z_decoder = Decoder(self.z_layers, settings.d_model)

    def step(self, t: TimeAxis) -> None:
        w = t.once("w", self.sequence_prior())
        x_before = self.x(self.input(t.prev("x")))
        query, key = self.xw_d(concatenate(x_before, w)), self.z_d(t.prev("z"))
        z = t.sample("z", self.prior(t.recur(self.z_decoder, query, key)))
        t.observe("x", self.decoder(self.h_of_x(t, self.zw_d(concatenate(z, w)), self.x_d(x_before))))
