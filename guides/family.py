"""The guides that fit any model of frames with one latent each: what they see of x, and what they remember of
z.

``{past,future,all}-{meanfield,markov,memory}``: the first word says which x the guide sees at frame t,
x_{1:t}, x_{t:T} or x_{1:T}; the second which z, none, z_{t-1} or z_{1:t-1}. In the names of Krishnan et al.
(2017): DKS is future-markov, ST-L past-markov, ST-LR all-markov, MF-LR all-meanfield.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import linear

from guides.chain import Chain
from guides.guide import Guide, GuideSettings
from models.dvae import DVAE
from models.networks import LSTM, MLP, Context, GaussianHead, concatenate
from models.structure import Parents
from models.time_axis import TimeAxis

__all__ = ["FamilyGuide", "FamilySettings"]

SEES = {"past": "x[:t+1]", "future": "x[t:]", "all": "x[:]"}
REMEMBERS: dict[str, tuple[str, ...]] = {"meanfield": (), "markov": ("z[t-1]",), "memory": ("z[:t]",)}


@dataclass
class FamilySettings(GuideSettings):
    """Settings of a guide of the family.

    Attributes:
        x_g: widths from x_t to the LSTM over x.
        g_dim: width of the LSTM over x, in each direction.
        g_layers: its layers.
        z_k: widths from z_{t-1} on (markov, memory).
        k_dim: width of the LSTM over z_{1:t-1} (memory).
        g_z: widths from what was seen and remembered to z_t.
    """

    x_g: list[int] = field(default_factory=lambda: [256])
    g_dim: int = 128
    g_layers: int = 1
    z_k: list[int] = field(default_factory=lambda: [32, 64])
    k_dim: int = 128
    g_z: list[int] = field(default_factory=lambda: [64, 32])


class FamilyGuide(Guide):
    """q(z_t | seen x, remembered z) = N of MLP([g_t; k_t]), g_t an LSTM over x, k_t what is kept of z."""

    Settings = FamilySettings

    def __init__(self, model: DVAE, settings: FamilySettings) -> None:
        super().__init__(model)
        sees, _, self.remembers = settings.name.partition("-")
        self.x_g = MLP(self.x_dim, settings.x_g)
        self.g = Context(self.x_g.out_dim, settings.g_dim, settings.g_layers, sees)
        wide = self.g.out_dim
        if self.remembers != "meanfield":
            self.z_k = MLP(self.z_dim, settings.z_k)
            wide += self.z_k.out_dim
        if self.remembers == "memory":
            self.k = LSTM(self.z_k.out_dim, settings.k_dim)
            wide += settings.k_dim - self.z_k.out_dim
        self.g_z = MLP(wide, settings.g_z)
        self.head = GaussianHead(self.g_z.out_dim, self.z_dim)

    @classmethod
    def parents(cls, settings: FamilySettings) -> Parents:
        sees, _, remembers = settings.name.partition("-")
        return {"z": (SEES[sees], *REMEMBERS[remembers])}

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        g: Tensor = self.g(self.x_g(self.input(x)), lengths)
        return g

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        g = t.feature(encoded)
        if self.remembers == "meanfield":
            t.sample("z", self.posterior(g))
        elif self.remembers == "markov":
            t.sample("z", self.posterior(g, self.z_k(t.prev("z"))))
        else:
            t.sample("z", self.posterior(g, t.recur(self.k, self.z_k(t.prev("z")))))

    def chain(self, encoded: Tensor) -> Chain | None:
        if self.remembers != "markov":
            return None
        first, *after = [*self.g_z.affine, self.head.affine]
        of_g, of_k = first.weight.split([self.g.out_dim, self.z_k.out_dim], dim=1)
        return Chain(linear(encoded, of_g, first.bias), self.z_k.affine, of_k, after)

    def posterior(self, *known: Tensor) -> dist.TorchDistribution:
        """q(z_t | g_t, k_t)."""
        distribution: dist.TorchDistribution = self.head(self.g_z(concatenate(*known)))
        return distribution
