r"""MS-STCN, multiscale stochastic temporal convolutional network (Andersson, Wahlstrom & Schon, 2021).

.. math:: p(x, z) = \prod_t p(x_t \mid x_{1:t-1}, z^{1:L}_t) \prod_l \prod_\tau
    p(z^l_\tau \mid x_{< \tau S_l}, z^{l+1:L}_\tau),

with L layers of latents, layer 1 next to the data, each with its own time scale: a step of layer l is S_l frames, and
z^m_\tau of a layer m above it is the latent of the step that contains frame \tau S_l. All other networks are
deterministic (`models.nn.ladder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from dvae_pyro.errors import UserError
from models.core.conditional import Conditionals
from models.core.sites import Sites
from models.core.tensors import to_float32
from models.core.time_axis import TimeAxis, run
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.nn.ladder import Ladder
from models.nn.layers import GaussianHead
from models.structure.parents import Parents

__all__ = ["MSSTCN", "LatentHead", "MSSTCNSettings", "bounded_normal"]

LEAST, MOST = 1e-3, 5.0
"""Bounds of the standard deviation of a latent, in prior and posterior."""

WAVEFORM: Mapping[str, Any] = {
    "model.likelihood": "channel_mixture",
    "model.components": 2,
    "optim.lr": 5e-4,
    "optim.schedule": "exponential",
    "optim.gamma": 0.98,
    "optim.decay_steps": 6000,
    "optim.min_lr": 1e-7,
    "train.batch_size": 128,
    "train.kl_warmup_steps": 0,
    "train.free_bits.threshold": 0.5,
    "train.free_bits.halve_every": 300_000,
}
"""Settings of the paper and its public code for waveforms."""
SMALLEST_FRAMES: Mapping[str, Any] = {
    "model.widths": [26, 58, 128, 256, 256],
    "model.strides": [1, 5, 5, 4, 1],
    "model.z_dims": [1, 5, 25, 64, 64],
    "model.dilations": [1, 1, 1, 1, 1],
    "model.top_dilations": [1, 2, 4, 8, 16],
}
"""The public code's sizes for frames of two samples."""


@dataclass
class MSSTCNSettings(ModelSettings):
    """Settings of MS-STCN; lists have one entry for each layer, layer 1 (next to the data) first.

    Attributes:
        widths: channels of each layer.
        strides: steps of the layer below per step of each layer; all 1 is "without multiscale".
        z_dims: size of each layer's latent; empty: `z_dim` in all of them.
        latent: false omits the latents: a deterministic autoregressive model.
        dilations: dilations of the blocks of the bottom-up WaveNets, except in the last layer.
        top_dilations: dilations in the last layer's bottom-up WaveNet.
        down_blocks: blocks of each top-down WaveNet.
        every_block: whether every top-down block is conditioned on the latent, or only the first.
        resampling: "learned" as in the paper, or "fixed" as in its public code.
    """

    name: str = "ms_stcn"
    widths: list[int] = field(default_factory=lambda: [128] * 5)
    strides: list[int] = field(default_factory=lambda: [1, 2, 2, 2, 1])
    z_dims: list[int] = field(default_factory=list)
    latent: bool = True
    dilations: list[int] = field(default_factory=lambda: [1, 1, 1, 1])
    top_dilations: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    down_blocks: int = 2
    every_block: bool = True
    resampling: str = "learned"


def bounded_normal(mean: Tensor, o: Tensor) -> dist.TorchDistribution:
    """N(mean, s^2), s = softplus(o) between `LEAST` and `MOST`."""
    return dist.Independent(dist.Normal(to_float32(mean), softplus(to_float32(o)).clamp(LEAST, MOST)), 1)


class LatentHead(GaussianHead):
    """A `bounded_normal` of an affine map."""

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return bounded_normal(*self.affine(h).chunk(2, dim=-1))


class MSSTCN(DVAE):
    """Latents at several time scales, from the slowest down to the data."""

    Settings = MSSTCNSettings
    paper_guide = "guides.ms_stcn:MSSTCNGuide"
    stepwise = False
    defaults: ClassVar[Mapping[str, Any]] = {
        **DVAE.defaults,
        "data.frontend": "waveform",
    }

    def __init__(self, settings: MSSTCNSettings) -> None:
        super().__init__(settings)
        _check(settings)
        self.latents = self.latents_of(settings)
        self.z_dims = _z_dims(settings)
        self.ladder = Ladder(
            self.input.out_dim,
            settings.widths,
            settings.strides,
            self.z_dims,
            settings.dilations,
            settings.top_dilations,
            down_blocks=settings.down_blocks,
            every_block=settings.every_block,
            learned=settings.resampling == "learned",
        )
        used = settings.widths if settings.latent else []
        self.prior_heads = Conditionals(LatentHead(w, n) for w, n in zip(used, self.z_dims, strict=False))
        self.likelihood = head(settings, self.ladder.out_dim)

    @classmethod
    def waveform_defaults(cls, frame_width: int) -> Mapping[str, Any]:
        """The training of the paper, and its sizes where they are known."""
        return {**WAVEFORM, **SMALLEST_FRAMES} if frame_width == 2 else WAVEFORM

    @classmethod
    def latents_of(cls, settings: MSSTCNSettings) -> tuple[str, ...]:
        """``layer<L>`` to ``layer1``, in the order of drawing."""
        return tuple(f"layer{i}" for i in range(len(settings.widths), 0, -1)) if settings.latent else ()

    @classmethod
    def parents(cls, settings: MSSTCNSettings) -> Parents:
        above = cls.latents_of(settings)
        latents = {site: ("x[:t]", *(f"{m}[t]" for m in above[:i])) for i, site in enumerate(above)}
        return latents | {"x": ("x[:t]", *(f"{m}[t]" for m in above))}

    @property
    def sizes(self) -> dict[str, int]:
        layers = {f"layer{i + 1}": n for i, n in enumerate(self.z_dims)} if self.latents else {}
        return {"x": self.x_dim, **layers}

    @property
    def strides(self) -> dict[str, int]:
        return {name: self.ladder.scales[int(name[5:]) - 1] for name in self.latents}

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        run(self.step, sites)

    def step(self, t: TimeAxis) -> None:
        def sample(tau: TimeAxis, i: int, h: Tensor) -> Tensor | None:
            return tau.sample(f"layer{i + 1}", self.prior(i, h)) if self.latents else None

        g = self.ladder.sample_top_down(t, sample, u=self.input(t.prev("x")))
        t.observe("x", self.decoder(g))

    def prior(self, i: int, h: Tensor) -> dist.TorchDistribution:
        """p(z^l | x, z above), Eq. 11, l = i + 1, from h_l, a function of earlier data and the latents above."""
        return self.prior_heads[i](h)

    def decoder(self, g: Tensor) -> dist.TorchDistribution:
        """p(x_t | x_{1:t-1}, z_t), from g_0 (Eq. 12a)."""
        return self.likelihood(g)


def _z_dims(settings: MSSTCNSettings) -> list[int]:
    if not settings.latent:
        return [0] * len(settings.widths)
    return list(settings.z_dims) or [settings.z_dim] * len(settings.widths)


def _check(settings: MSSTCNSettings) -> None:
    layers = len(settings.widths)
    if not layers:
        raise UserError("model.widths is empty: expected the channels of at least one layer.")
    for key, value in (("strides", settings.strides), ("z_dims", settings.z_dims or settings.widths)):
        if len(value) != layers:
            raise UserError(
                f"model.{key} has {len(value)} entries and model.widths has {layers}: expected one for each layer."
            )
    if settings.strides[0] != 1:
        raise UserError(
            f"model.strides[0]={settings.strides[0]}: expected 1, the time scale of the data; otherwise the frames of "
            "one step of layer 1 would not depend on each other. Set model.bins for another frame width."
        )
    if settings.resampling not in ("learned", "fixed"):
        raise UserError(f"model.resampling={settings.resampling}: expected learned or fixed.")
