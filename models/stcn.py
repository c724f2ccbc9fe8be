r"""STCN, stochastic temporal convolutional network (Aksan & Hilliges, "STCN: Stochastic temporal convolutional
networks", 2019).

.. math::
    p(x, z) &= \prod_t p(x_t \mid z^{1:L}_{t-r:t}) \prod_l p(z^l_t \mid x_{1:t-1}, z^{l+1}_t) \tag{1} \\
    d^l_t &= \mathrm{Conv}^l(d^{l-1}_{1:t}), \quad d^0 = x \tag{2} \\
    p(z^l_t \mid x_{1:t-1}, z^{l+1}_t) &= N(\mu^l(d^l_{t-1}, z^{l+1}_t), \sigma^l(d^l_{t-1}, z^{l+1}_t)^2) \tag{3} \\
    p(x_t \mid z^{1:L}_{t-r:t}) &= p(x_t \mid \mathrm{Conv}(z^{1:L}_{t-r:t})) \tag{4}

with L layers of latents, layer 1 next to the data. The past of x is encoded by one stack of causal convolutions; the
prior of layer l takes its features d^l, after l of L equal parts of the stack. The data are decoded from the latents of
the last r + 1 frames by separate convolutions, and depend on the past only through these latents. In the dense variant
(STCN-dense, which the MS-STCN paper quotes) the decoder takes all layers, else layer 1. The equations are numbered
here; they are those of the paper's part on the generative model.

Sizes, and details that the paper does not specify, follow its authors' code, except that the linear map after a gate
has no bias (`models.nn.wavenet`): it would be redundant with the biases of the following layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from models.core.conditional import Conditional, Conditionals
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.ms_stcn import bounded_normal
from models.nn.layers import MLP
from models.nn.wavenet import OverTime, WaveNet
from models.structure.parents import Parents

__all__ = ["STCN", "DeepLatentHead", "STCNSettings"]

WAVEFORM: Mapping[str, Any] = {
    "model.likelihood": "mixture",
    "model.components": 20,
    "model.scale_bounds": [1e-3, 50.0],
    "model.weight_floor": 1e-6,
    "optim.lr": 1e-3,
    "optim.schedule": "exponential",
    "optim.gamma": 0.98,
    "optim.decay_steps": 1000,
    "optim.clip": 0.025,  # norm of the gradient per frame; 1 per sequence of 40 frames in the public code
    "train.batch_size": 128,
    "train.kl_warmup_steps": 10_000,
}
"""Settings of the public code for waveforms."""


@dataclass
class STCNSettings(ModelSettings):
    """Settings of STCN; lists of layers have layer 1 (next to the data) first.

    Attributes:
        widths: channels of each layer's part of the convolutions over the past.
        z_dims: size of each layer's latent; empty: `z_dim` in all of them.
        dilations: dilations of the blocks of each layer's part.
        hidden: widths from d and the latent above to a latent, in prior and posterior, separately for mean and
            standard deviation.
        out_width: channels of the decoder.
        out_dilations: dilations of its blocks.
        dense: whether the decoder takes the latents of all layers, or only of layer 1.
    """

    name: str = "stcn"
    widths: list[int] = field(default_factory=lambda: [128, 128, 128])
    z_dims: list[int] = field(default_factory=lambda: [64, 32, 16])
    dilations: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    out_width: int = 128
    out_dilations: list[int] = field(default_factory=lambda: [1, 1])
    dense: bool = True


class DeepLatentHead(Conditional):
    """A Gaussian whose mean and standard deviation have separate hidden layers (ReLU)."""

    def __init__(self, in_dim: int, out_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.mean, self.deviation = (
            nn.Sequential(net, nn.Linear(net.out_dim, out_dim))
            for net in (MLP(in_dim, hidden, nn.ReLU), MLP(in_dim, hidden, nn.ReLU))
        )

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return bounded_normal(self.mean(h), self.deviation(h))


class STCN(DVAE):
    """p(z^l_t | x_{1:t-1}, z^{l+1}_t) from the top layer down, and p(x_t | z)."""

    Settings = STCNSettings
    paper_guide = "guides.stcn:STCNGuide"
    defaults: ClassVar[Mapping[str, Any]] = {**DVAE.defaults, "data.frontend": "waveform"}

    def __init__(self, settings: STCNSettings) -> None:
        super().__init__(settings)
        _check(settings)
        self.latents = self.latents_of(settings)
        self.z_dims = list(settings.z_dims) or [settings.z_dim] * len(settings.widths)
        self.widths, self.hidden = list(settings.widths), settings.hidden
        self.dense = settings.dense
        below = [self.input.out_dim, *settings.widths]
        self.up = nn.ModuleList(
            OverTime(WaveNet(n, width, settings.dilations, kernel=2))
            for n, width in zip(below, settings.widths, strict=False)
        )
        above = [*self.z_dims[1:], 0]
        self.head_dims = [width + n for width, n in zip(settings.widths, above, strict=True)]
        self.prior_heads = Conditionals(
            DeepLatentHead(n, m, settings.hidden) for n, m in zip(self.head_dims, self.z_dims, strict=True)
        )
        seen = sum(self.z_dims) if settings.dense else self.z_dims[0]
        self.out = OverTime(WaveNet(seen, settings.out_width, settings.out_dilations, kernel=2))
        self.likelihood = head(settings, settings.out_width)

    @classmethod
    def waveform_defaults(cls, frame_width: int) -> Mapping[str, Any]:
        """The training of the public code; short runs need a smaller `train.kl_warmup_steps`."""
        return WAVEFORM

    @classmethod
    def latents_of(cls, settings: STCNSettings) -> tuple[str, ...]:
        """``layer<L>`` to ``layer1``, in the order of drawing."""
        return tuple(f"layer{i}" for i in range(len(settings.widths), 0, -1))

    @classmethod
    def parents(cls, settings: STCNSettings) -> Parents:
        layers = cls.latents_of(settings)
        latents = {site: ("x[:t]", *(f"{m}[t]" for m in layers[:i][-1:])) for i, site in enumerate(layers)}
        decoded = layers if settings.dense else layers[-1:]
        return latents | {"x": tuple(f"{m}[t-{sum(settings.out_dilations)}:t+1]" for m in decoded)}

    @property
    def sizes(self) -> dict[str, int]:
        return {"x": self.x_dim, **{f"layer{i + 1}": n for i, n in enumerate(self.z_dims)}}

    def step(self, t: TimeAxis) -> None:
        d = self.input(t.prev("x"))
        features = []
        for net in self.up:
            d = t.recur(cast(OverTime, net), d)
            features.append(d)
        z: list[Tensor] = []
        for i in reversed(range(len(features))):
            z.append(t.sample(f"layer{i + 1}", self.prior(i, features[i], *z[-1:])))
        t.observe("x", self.decoder(t.recur(self.out, *(z if self.dense else z[-1:]))))

    def prior(self, i: int, d: Tensor, *above: Tensor) -> dist.TorchDistribution:
        """p(z^l_t | x_{1:t-1}, z^{l+1}_t), l = i + 1: Eq. 3 of this module, from d^l of the past and, below the top,
        the latent above.
        """
        return self.prior_heads[i](concatenate(d, *above))

    def decoder(self, g: Tensor) -> dist.TorchDistribution:
        """p(x_t | z^{1:L}_{t-r:t}): Eq. 4 of this module, from the convolutions over the latents."""
        return self.likelihood(g)


def _check(settings: STCNSettings) -> None:
    for key in ("widths", "dilations", "out_dilations"):
        if not getattr(settings, key):
            raise UserError(f"model.{key} is empty: expected at least one number.")
    if settings.z_dims and len(settings.z_dims) != len(settings.widths):
        raise UserError(
            f"model.z_dims has {len(settings.z_dims)} entries and model.widths has {len(settings.widths)}: "
            "expected one for each layer."
        )
