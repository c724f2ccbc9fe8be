"""Recurrent guides for any model with a latent in each frame.

``{past,future,all}-{meanfield,markov,memory}``: the first word is the x that q(z_t) conditions on, x_{1:t}, x_{t:T} or
x_{1:T}; the second the z, none, z_{t-1} or z_{1:t-1}. As named by Krishnan et al. (2017), DKS is future-markov, ST-L
past-markov, ST-LR all-markov, MF-LR all-meanfield. Latents outside time (v) are inferred from all of x first, and every
q(z_t) conditions on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import linear

from guides.core.chain import Chain, MemoryChain, lstm_parts
from guides.core.guide import Guide, GuideSettings
from models.core.conditional import Conditional
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.nn.layers import MLP, Context, GaussianHead, Recurrent
from models.structure.parents import Parents

__all__ = ["RecurrentGuide", "FamilySettings", "SequencePosterior"]

SEES = {"past": "x[:t+1]", "future": "x[t:]", "all": "x[:]"}
REMEMBERS: dict[str, tuple[str, ...]] = {"meanfield": (), "markov": ("z[t-1]",), "memory": ("z[:t]",)}


@dataclass
class FamilySettings(GuideSettings):
    """Settings of a guide of the family.

    Attributes:
        x_g: widths from x_t to the LSTM over x.
        g_dim: width of the LSTM over x, in each direction.
        g_layers: number of its layers.
        z_k: widths of the feature extractor of z_{t-1} (markov, memory).
        k_dim: width of the LSTM over z_{1:t-1} (memory).
        k_layers: number of its layers.
        g_z: widths from the features of x and z to z_t.
    """

    x_g: list[int] = field(default_factory=lambda: [256])
    g_dim: int = 128
    g_layers: int = 1
    z_k: list[int] = field(default_factory=lambda: [32, 64])
    k_dim: int = 128
    k_layers: int = 1
    g_z: list[int] = field(default_factory=lambda: [64, 32])


class SequencePosterior(Conditional):
    """q(v | x_{1:T}) from both ends of a bidirectional LSTM over x, as of DSAE (Li & Mandt, 2018, inference model)."""

    def __init__(self, in_dim: int, width: int, widths: list[int], out_dim: int) -> None:
        super().__init__()
        self.g = Context(in_dim, width)
        self.g_v = MLP(self.g.out_dim, widths)
        self.head = GaussianHead(self.g_v.out_dim, out_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> dist.TorchDistribution:
        return self.head(self.g_v(self.g.ends(x, lengths)))


class RecurrentGuide(Guide):
    """q(z_t | x, z) = N of MLP([g_t; k_t]), g_t an LSTM over x, k_t features of earlier z."""

    Settings = FamilySettings
    kind: ClassVar[str | None] = None
    """The name of the variant, for a subclass with a fixed one; otherwise it is the settings' name."""

    def __init__(self, model: DVAE, settings: FamilySettings) -> None:
        super().__init__(model)
        sees, _, self.remembers = (self.kind or settings.name).partition("-")
        self.x_g = MLP(self.x_dim, settings.x_g)
        self.g = Context(self.x_g.out_dim, settings.g_dim, settings.g_layers, sees, backward_first=sees == "all")
        outside = {name: model.sizes[name] for name in model.latents if name != self.latent}
        self.outside = nn.ModuleDict(
            {
                name: SequencePosterior(self.x_g.out_dim, settings.g_dim, settings.g_z, size)
                for name, size in outside.items()
            }
        )
        self.encoded_dim = self.g.out_dim + sum(outside.values())
        self.z_k = MLP(self.z_dim, settings.z_k if self.remembers != "meanfield" else [])
        remembered = {"meanfield": 0, "markov": self.z_k.out_dim, "memory": settings.k_dim}[self.remembers]
        if self.remembers == "memory":
            self.k = Recurrent(self.z_k.out_dim, settings.k_dim, settings.k_layers)
        self.g_z = MLP(self.encoded_dim + remembered, settings.g_z)
        self.head = GaussianHead(self.g_z.out_dim, self.z_dim)

    @classmethod
    def parents(cls, settings: FamilySettings, latents: Sequence[str] = ("z",)) -> Parents:
        sees, _, remembers = (cls.kind or settings.name).partition("-")
        z = "z" if "z" in latents else latents[-1]
        outside = tuple(name for name in latents if name != z)
        outside_parents: dict[str, tuple[str, ...]] = {name: ("x[:]",) for name in outside}
        remembered = (parent.replace("z", z) for parent in REMEMBERS[remembers])
        return outside_parents | {z: (SEES[sees], *remembered, *outside)}

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x = self.x_g(self.input(sites.data["x"]))
        outside = [sites.once(name, posterior(x, lengths)) for name, posterior in self.outside.items()]
        return concatenate(self.g(x, lengths), *outside)

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        g = t.feature(encoded)
        if self.remembers == "meanfield":
            t.sample(self.latent, self.posterior(g))
        elif self.remembers == "markov":
            t.sample(self.latent, self.posterior(g, self.z_k(t.prev(self.latent))))
        else:
            t.sample(self.latent, self.posterior(g, t.recur(self.k, self.z_k(t.prev(self.latent)))))

    def chain(self, encoded: Tensor) -> Chain | MemoryChain | None:
        first, *after = [*self.g_z.affine, self.head.affine]
        of_g, of_k = first.weight.tensor_split([self.encoded_dim], dim=1)
        injected = linear(encoded, of_g, first.bias)
        if self.remembers == "markov":
            return Chain(injected, self.z_k.affine, of_k, after)
        lstm = lstm_parts(self.k) if self.remembers == "memory" else None
        if lstm is None:
            return None
        weight_in, weight_h, bias = lstm
        gates = bias.expand(*encoded.shape[-3:-1], -1)
        return MemoryChain(gates, self.z_k.affine, weight_in, weight_h, injected, of_k, after, lag=False)

    def posterior(self, *known: Tensor) -> dist.TorchDistribution:
        """q(z_t | g_t, k_t): Bie et al. (2021), Eq. 5, with the parents that the name of the guide states."""
        return self.head(self.g_z(concatenate(*known)))
