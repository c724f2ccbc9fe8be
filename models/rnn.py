r"""A recurrent network without latents, the deterministic baseline of DVAEs (the RNN of Chung et al., 2015).

.. math:: p(x_{1:T}) = \prod_t p(x_t \mid x_{1:t-1}), \tag{1}

with one LSTM. Its bound is the exact log-likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor

from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.nn.layers import MLP, Recurrent

__all__ = ["RNN", "RNNSettings"]


@dataclass
class RNNSettings(ModelSettings):
    """Settings of RNN.

    Attributes:
        x_h: widths from x_{t-1} to the LSTM.
        h_dim: width H of the LSTM.
        h_layers: number of layers of the LSTM.
        h_x: widths of the decoder from h_t to x_t.
    """

    name: str = "rnn"
    x_h: list[int] = field(default_factory=lambda: [256])
    h_dim: int = 128
    h_layers: int = 1
    h_x: list[int] = field(default_factory=lambda: [256])


class RNN(DVAE):
    """p(x_t | x_{1:t-1})."""

    Settings = RNNSettings
    paper_guide = "guides.rnn:EmptyGuide"
    latents = ()
    declared = {"x": ("x[:t]",)}
    defaults = {**DVAE.defaults, "train.kl_warmup_steps": 0}

    def __init__(self, settings: RNNSettings) -> None:
        super().__init__(settings)
        self.x_h = MLP(self.x_dim, settings.x_h)
        self.h = Recurrent(self.x_h.out_dim, settings.h_dim, settings.h_layers)
        self.h_x = MLP(settings.h_dim, settings.h_x)
        self.likelihood = head(settings, self.h_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        t.observe("x", self.decoder(t.recur(self.h, self.x_h(self.input(t.prev("x"))))))

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}), from h_t: Eq. 1 of this module, the row RNN of Andersson et al. (2021), Table 1."""
        return self.likelihood(self.h_x(h))
