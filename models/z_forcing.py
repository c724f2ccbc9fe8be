r"""The model of Z-Forcing (Goyal et al., "Z-Forcing: Training stochastic recurrent networks", 2017, arXiv 1711.05411).

.. math::
    p(x_{1:T}, z_{1:T}) &= \prod_t p(z_t \mid h_{t-1})\, p(x_t \mid h_t) \tag{1} \\
    h_t &= \mathrm{LSTM}([x_{t-1}; z_t], h_{t-1}), \quad h_0 = 0 \tag{2} \\
    p(z_t \mid h_{t-1}) &= N(\mu(h_{t-1}), \sigma(h_{t-1})^2) \tag{3} \\
    p(x_t \mid h_t) &= p(x_t \mid \mathrm{MLP}(h_t)) \tag{4}

(the paper's generative model; the numbers are of this module), where z_t is an input of the recurrent network, and x_t
depends on it only through h_t. The auxiliary cost in training, which gives the paper its name, is in
`guides.z_forcing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.nn.layers import MLP, GaussianHead, Recurrent

__all__ = ["Delay", "ZForcing", "ZForcingSettings"]


@dataclass
class ZForcingSettings(ModelSettings):
    """Settings of Z-Forcing's model.

    Attributes:
        x_h: widths from x_{t-1} to the LSTM.
        z_h: widths from z_t to the LSTM.
        h_dim: width H of the LSTM.
        h_layers: number of layers of the LSTM.
        h_z: widths of the prior from h_{t-1} to z_t.
        h_x: widths of the decoder from h_t to x_t.
    """

    name: str = "z_forcing"
    x_h: list[int] = field(default_factory=lambda: [256])
    z_h: list[int] = field(default_factory=lambda: [64])
    h_dim: int = 128
    h_layers: int = 1
    h_z: list[int] = field(default_factory=lambda: [64])
    h_x: list[int] = field(default_factory=list)


class Delay(nn.Module):
    """The input of the previous frame, zero at the first one, as a `models.core.time_axis.Causal` network."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_dim = dim

    def forward(self, u: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """From u (..., T, N, D) to the same one frame later, and the last frame (..., N, D)."""
        before = torch.zeros_like(u[..., 0, :, :]) if state is None else state[0]
        before = before.expand(u.shape[:-3] + u.shape[-2:])[..., None, :, :]
        return torch.cat([before, u[..., :-1, :, :]], dim=-3), (u[..., -1, :, :],)


class ZForcing(DVAE):
    """p(z_t | x_{1:t-2}, z_{1:t-1}) p(x_t | x_{1:t-1}, z_{1:t})."""

    Settings = ZForcingSettings
    paper_guide = "guides.z_forcing:ZForcingGuide"
    declared = {"z": ("x[:t-1]", "z[:t]"), "x": ("x[:t]", "z[:t+1]")}

    def __init__(self, settings: ZForcingSettings) -> None:
        super().__init__(settings)
        self.x_h = MLP(self.x_dim, settings.x_h)
        self.z_h = MLP(self.z_dim, settings.z_h)
        self.delay = Delay(self.x_h.out_dim)
        self.h = Recurrent(self.x_h.out_dim + self.z_h.out_dim, settings.h_dim, settings.h_layers)
        self.h_z = MLP(settings.h_dim, settings.h_z)
        self.prior_head = GaussianHead(self.h_z.out_dim, self.z_dim)
        self.h_x = MLP(settings.h_dim, settings.h_x)
        self.likelihood = head(settings, self.h_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        x = self.x_h(self.input(t.prev("x")))
        before = t.recur(self.h, t.recur(self.delay, x), self.z_h(t.prev("z")), lag=True)
        z = t.sample("z", self.prior(before))
        t.observe("x", self.decoder(t.recur(self.h, x, self.z_h(z))))

    def prior(self, before: Tensor) -> dist.TorchDistribution:
        """p(z_t | h_{t-1}): Eq. 3 of this module."""
        return self.prior_head(self.h_z(before))

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | h_t), h_t from x_{1:t-1} and z_{1:t}: Eq. 4 of this module."""
        return self.likelihood(self.h_x(h))
