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

from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.hit_dvae import HierarchicalTransformer, HiTDVAESettings
from models.nn.attention import Decoder

__all__ = ["LigHTDVAE", "LigHTDVAESettings"]


@dataclass
class LigHTDVAESettings(HiTDVAESettings):
    """Settings of LigHT-DVAE: those of HiT-DVAE, of which it is the light version."""

    name: str = "light_dvae"


class LigHTDVAE(HierarchicalTransformer):
    """p(w) p(z_t | x_{1:t-1}, z_{1:t-1}, w) p(x_t | x_{1:t-1}, z_{1:t}, w), by one decoder."""

    Settings = LigHTDVAESettings

    def __init__(self, settings: LigHTDVAESettings) -> None:
        super().__init__(settings)
        self.z_decoder = Decoder(self.layers, settings.d_model)

    def step(self, t: TimeAxis) -> None:
        w = t.once("w", self.sequence_prior())
        x_before = self.x_d(self.x(self.input(t.prev("x"))))
        h = t.recur(self.z_decoder, self.zw_d(concatenate(t.prev("z"), w)), x_before)
        z = t.sample("z", self.prior(h))
        t.observe("x", self.decoder(self.h_of_x(t, self.zw_d(concatenate(z, w)), x_before)))
