r"""DKF, deep Kalman filter (Krishnan, Shalit & Sontag, "Structured inference networks for nonlinear state
space models", 2017; networks as in Bie et al., 2021).

.. math:: p(x_{1:T}, z_{1:T}) = \prod_t p(z_t \mid z_{t-1})\, p(x_t \mid z_t), \qquad z_0 = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.core.conditional import Conditional
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.nn.layers import MLP

__all__ = ["DKF", "DKFSettings", "GatedTransition"]


@dataclass
class DKFSettings(ModelSettings):
    """Settings of the DKF.

    Attributes:
        z_z: width of the hidden layers of the transition's gate and proposal; null: the size of z, as in the public
            code.
        z_x: widths of the decoder from z_t to x_t.
    """

    name: str = "dkf"
    z_z: int | None = None
    z_x: list[int] = field(default_factory=lambda: [32, 64, 128, 256])


class GatedTransition(Conditional):
    r"""The gated transition of Krishnan et al.; in the code of the benchmark paper every layer has the width of z.

    .. math::
        \gamma = \sigma(A\,\mathrm{relu}(A z)), \quad m = A\,\mathrm{relu}(A z), \quad
        \mu = (1 - \gamma) \odot A z + \gamma \odot m, \quad \sigma^2 =
        \mathrm{softplus}(A\,\mathrm{relu}(m)).

    The softplus gives the variance; in Krishnan et al. it gives the standard deviation.
    """

    def __init__(self, z_dim: int, width: int | None = None) -> None:
        super().__init__()
        width = z_dim if width is None else width
        self.gate = nn.Sequential(nn.Linear(z_dim, width), nn.ReLU(), nn.Linear(width, z_dim), nn.Sigmoid())
        self.proposal = nn.Sequential(nn.Linear(z_dim, width), nn.ReLU(), nn.Linear(width, z_dim))
        self.linear = nn.Linear(z_dim, z_dim)
        self.variance = nn.Linear(z_dim, z_dim)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        gate, proposal = self.gate(z), self.proposal(z)
        mean = (1.0 - gate) * self.linear(z) + gate * proposal
        variance = softplus(self.variance(torch.relu(proposal)))
        return dist.Independent(dist.Normal(mean, variance.sqrt()), 1)


class DKF(DVAE):
    """p(z_t | z_{t-1}) p(x_t | z_t)."""

    Settings = DKFSettings
    paper_guide = "guides.dkf:DKFGuide"
    declared = {"z": ("z[t-1]",), "x": ("z[t]",)}

    def __init__(self, settings: DKFSettings) -> None:
        super().__init__(settings)
        self.transition = GatedTransition(self.z_dim, settings.z_z)
        self.z_x = MLP(self.z_dim, settings.z_x)
        self.likelihood = head(settings, self.z_x.out_dim)

    def step(self, t: TimeAxis) -> None:
        z = t.sample("z", self.prior(t.prev("z")))
        t.observe("x", self.decoder(z))

    def prior(self, z_before: Tensor) -> dist.TorchDistribution:
        """p(z_t | z_{t-1}): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.transition(z_before)

    def decoder(self, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_t): Bie et al. (2021), Eq. 4 and Table 1."""
        return self.likelihood(self.z_x(z))
