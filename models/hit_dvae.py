r"""HiT-DVAE, hierarchical transformer DVAE (Bie et al., "HiT-DVAE: human motion generation via hierarchical transformer
dynamical VAE", 2022; for speech as in Lin et al., 2023).

.. math:: p(x_{1:T}, z_{1:T}, w) = p(w) \prod_t p(z_t \mid x_{1:t-1}, z_{1:t-1}, w)\, p(x_t \mid x_{1:t-1}, z_{1:t}, w).

LigHT-DVAE (`models.light_dvae`) with a separate decoder for z_t: queries come from the stream [x_{0:t-1}; w], keys and
values of the cross-attention from z_{0:t-1}, with x_0 = 0 and z_0 = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.core.tensors import concatenate
from models.light_dvae import LigHTDVAE, LigHTDVAESettings, Streams
from models.nn.attention import Decoder

__all__ = ["HiTDVAE", "HiTDVAESettings"]


@dataclass
class HiTDVAESettings(LigHTDVAESettings):
    """Settings of HiT-DVAE: those of `models.light_dvae.LigHTDVAESettings`."""

    name: str = "hit_dvae"


class HiTDVAE(LigHTDVAE):
    """p(w) p(z_t | x_{1:t-1}, z_{1:t-1}, w) p(x_t | x_{1:t-1}, z_{1:t}, w), by two decoders."""

    Settings = HiTDVAESettings

    def __init__(self, settings: HiTDVAESettings) -> None:
        super().__init__(settings)
        self.xw_d = nn.Linear(self.x.out_dim + self.w_dim, settings.d_model)
        self.z_d = nn.Linear(self.z_dim, settings.d_model)
        self.z_layers = self._layers(settings)
        self.z_decoder = Decoder(self.z_layers, settings.d_model)

    def streams_of_z(self, z_before: Tensor, x_before: Tensor, w: Tensor) -> Streams:
        """Inputs of the decoder of z_t: the stream, from x_{t-1} and w, and the second stream, from z_{t-1}."""
        return self.xw_d(concatenate(x_before, w)), self.z_d(z_before)
