r"""The KVAE's guides, with z integrated out of the model, or drawn too:

.. math::
    q(a_{1:T} \mid x_{1:T}) &= \prod_t q(a_t \mid x_t) \tag{1} \\
    q(a_t \mid x_t) &= N(m(x_t), r\, \mathrm{sigmoid}(o(x_t))) \tag{2} \\
    q(z_t \mid z_{t-1}, x_{t:T}) &= N(\mu(g_t, z_{t-1}), \sigma(g_t, z_{t-1})^2), \quad
        g_t = \mathrm{LSTM}(x_t, g_{t+1}) \tag{3}

(1 and 2: recognition model of Fraccaro et al., 2017; the numbers are of this module).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.kvae import KVAE
from models.nn.layers import MLP, Context, GaussianHead

__all__ = ["KVAEGuide", "KVAEGuideSettings", "SampledKVAEGuide", "SampledKVAEGuideSettings"]


@dataclass
class KVAEGuideSettings(GuideSettings):
    """Settings of the KVAE's guide.

    Attributes:
        x_a: widths of the encoder from x_t to a_t.
    """

    x_a: list[int] = field(default_factory=lambda: [256, 128, 64, 32])


class KVAEGuide(Guide):
    """q(a_t | x_t) = N(m, r sigmoid(o)), as in the public code; the variance r of a_t given z_t is an upper bound."""

    Settings = KVAEGuideSettings
    declared = {"a": ("x[t]",)}

    def __init__(self, model: DVAE, settings: KVAEGuideSettings) -> None:
        super().__init__(model)
        if not isinstance(model, KVAE):
            raise TypeError(f"this guide is of the KVAE, got a {type(model).__name__}")
        self.most = model.dynamics.emission
        self.x_a = MLP(self.x_dim, settings.x_a)
        self.affine = nn.Linear(self.x_a.out_dim, 2 * model.a_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        out: Tensor = self.x_a(self.input(sites.data["x"]))
        return out

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        t.sample("a", self.posterior(t.feature(encoded)))

    def posterior(self, h: Tensor) -> dist.TorchDistribution:
        """q(a_t | x_t): Eq. 2 of this module, from the encoded x_t."""
        mean, o = self.affine(h).chunk(2, dim=-1)
        return dist.Independent(dist.Normal(mean, (self.most * torch.sigmoid(o)).sqrt()), 1)


@dataclass
class SampledKVAEGuideSettings(KVAEGuideSettings):
    """Settings of the guide that draws z.

    Attributes:
        g_dim: width of the LSTM over the encoded future of x.
        g_z: widths from it and z_{t-1} to z_t.
    """

    g_dim: int = 64
    g_z: list[int] = field(default_factory=lambda: [64])


class SampledKVAEGuide(KVAEGuide):
    """q(z_t | z_{t-1}, x_{t:T}) q(a_t | x_t), for `model.integrate=false`."""

    Settings = SampledKVAEGuideSettings
    declared = {"z": ("z[t-1]", "x[t:]"), "a": ("x[t]",)}

    def __init__(self, model: DVAE, settings: SampledKVAEGuideSettings) -> None:
        super().__init__(model, settings)
        self.split = [self.x_a.out_dim, settings.g_dim]
        self.g = Context(self.x_a.out_dim, settings.g_dim, sees="future")
        self.g_z = MLP(settings.g_dim + model.z_dim, settings.g_z)
        self.z_head = GaussianHead(self.g_z.out_dim, model.z_dim)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        h = super().encode(sites, lengths)
        return concatenate(h, self.g(h, lengths))

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        h, g = t.feature(encoded).split(self.split, dim=-1)
        t.sample("z", self.z_posterior(g, t.prev("z")))
        t.sample("a", self.posterior(h))

    def z_posterior(self, g: Tensor, z_before: Tensor) -> dist.TorchDistribution:
        """q(z_t | z_{t-1}, x_{t:T}): Eq. 3 of this module, not in Fraccaro et al. (2017), who integrate z out; the
        parents are those of DKS (Krishnan et al., 2017).
        """
        return self.z_head(self.g_z(concatenate(g, z_before)))
