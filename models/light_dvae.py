r"""LigHT-DVAE, light hierarchical transformer DVAE (Lin et al., "Speech modeling with a hierarchical transformer
dynamical VAE", 2023).

.. math:: p(x_{1:T}, z_{1:T}, w) = p(w) \prod_t p(z_t \mid x_{1:t-1}, z_{1:t-1}, w)\, p(x_t \mid x_{1:t-1}, z_{1:t}, w),
    \qquad p(w) = N(0, I)

(its Eq. 1), where w represents what is constant in a sequence. Both conditionals are computed by one transformer
decoder: queries come from the stream of z and w, keys and values of the cross-attention from the past of x. For x_t the
stream is [z_{1:t}; w]; for z_t it is one frame behind, [z_{0:t-1}; w] with z_0 = 0, because residual connections pass a
frame's own input on. The past of x is x_{0:t-1}, x_0 = 0.

The paper does not specify the feature extractors of x and [z; w], and its code is not public: the sizes here give both
published numbers of parameters (17.46 million, HiT-DVAE 21.75 million) to all printed digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
from torch import Tensor, nn

from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, standard_normal
from models.hit_dvae import HiTDVAESettings
from models.likelihoods.base import head
from models.nn.attention import Decoder, layers
from models.nn.layers import MLP, GaussianHead
from models.structure.parents import Parents

__all__ = ["LigHTDVAE", "LigHTDVAESettings"]


@dataclass
class LigHTDVAESettings(HiTDVAESettings):
    """Settings of LigHT-DVAE: those of HiT-DVAE, of which it is the light version."""

    name: str = "light_dvae"


class LigHTDVAE(DVAE):
    """p(w) p(z_t | x_{1:t-1}, z_{1:t-1}, w) p(x_t | x_{1:t-1}, z_{1:t}, w), by one decoder."""

    Settings = LigHTDVAESettings
    paper_guide = "guides.hit_dvae:HiTGuide"
    latents = ("w", "z")
    defaults = {**DVAE.defaults, "optim.lr": 5e-4, "optim.warmup_steps": 200}

    def __init__(self, settings: LigHTDVAESettings) -> None:
        super().__init__(settings)
        self.w_dim = settings.w_dim
        self.inverted = settings.variant != "standard"
        self.x = MLP(self.x_dim, settings.x)
        self.x_d = nn.Linear(self.x.out_dim, settings.d_model)
        self.zw_d = nn.Linear(self.z_dim + self.w_dim, settings.d_model)
        self.layers = layers(settings.layers, settings.d_model, settings.ff, crossing=True, dropout=settings.dropout)
        self.x_decoder = Decoder(self.layers, settings.d_model, residual=settings.variant != "inv_s_nr")
        self.z_decoder = Decoder(self.layers, settings.d_model)
        self.prior_head = GaussianHead(settings.d_model, self.z_dim)
        self.likelihood = head(settings, settings.d_model)

    @classmethod
    def parents(cls, settings: LigHTDVAESettings) -> Parents:
        return {"w": (), "z": ("x[:t]", "z[:t]", "w"), "x": ("x[:t]", "z[:t+1]", "w")}

    @property
    def sizes(self) -> dict[str, int]:
        return super().sizes | {"w": self.w_dim}

    def step(self, t: TimeAxis) -> None:
        w = t.once("w", self.sequence_prior())
        x_before = self.x_d(self.x(self.input(t.prev("x"))))
        query, key = self.zw_d(concatenate(t.prev("z"), w)), x_before
        z = t.sample("z", self.prior(t.recur(self.z_decoder, query, key)))
        query, key = self.zw_d(concatenate(z, w)), x_before
        query, key = (key, query) if self.inverted else (query, key)
        t.observe("x", self.decoder(t.recur(self.x_decoder, query, key)))

    def sequence_prior(self) -> dist.TorchDistribution:
        """p(w) = N(0, I), below Eq. 3."""
        return standard_normal(self, self.w_dim)

    def prior(self, h: Tensor) -> dist.TorchDistribution:
        """p(z_t | x_{1:t-1}, z_{1:t-1}, w), Eq. 3, from the output h_t of the decoder: query [z_{0:t-1}; w], key x."""
        return self.prior_head(h)

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}, z_{1:t}, w), Eq. 2, from the output h_t of the decoder: query [z_{1:t}; w], key x."""
        return self.likelihood(h)
