r"""STCN's guide, precision-weighted (Aksan & Hilliges, 2019):

.. math:: q(z \mid x) = \prod_t \prod_l q(z^l_t \mid x_{1:t}, z^{l+1}_t).

It reads the convolutions that the prior reads, one frame later. The true posterior sees the future of x too, which is
decoded from the latents of earlier frames. Unlike the public code, which hands the variance on where a deviation is
expected and conditions prior and posterior on different draws, this is a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import pad

from guides.core.ladder import LadderGuide, LadderGuideSettings, precision_weighted
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.stcn import STCN, DeepLatentHead
from models.structure.parents import Parents

__all__ = ["STCNGuide"]


class STCNGuide(LadderGuide):
    """q(z^l_t | x_{1:t}, z^{l+1}_t)."""

    paper = "precision"

    def __init__(self, model: DVAE, settings: LadderGuideSettings) -> None:
        super().__init__(model, settings)
        ours = cast(STCN, model)
        self.up, self.widths = ours.up, ours.widths
        if self.weighted:
            self.prior_heads = ours.prior_heads
        self.heads = nn.ModuleList(
            DeepLatentHead(n, m, ours.hidden) for n, m in zip(ours.head_dims, ours.z_dims, strict=True)
        )

    @classmethod
    def parents(cls, settings: Any, latents: Sequence[str] = ("layer1",)) -> Parents:
        return {site: ("x[:t+1]", *(f"{m}[t]" for m in latents[:i][-1:])) for i, site in enumerate(latents)}

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        """[d^1; ...; d^L] of the zero frame before the first, and of all frames: (T + 1, N, C)."""
        d = self.input(pad(sites.data["x"], (0, 0, 0, 0, 1, 0)))
        features = []
        for net in self.up:
            d, _ = net(d)
            features.append(d)
        return concatenate(*features)

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        before = t.feature(encoded).split(self.widths, dim=-1)
        now = t.feature(encoded[..., 1:, :, :]).split(self.widths, dim=-1)
        z: list[Tensor] = []
        for i in reversed(range(len(self.widths))):
            z.append(t.sample(f"layer{i + 1}", self.posterior(i, now[i], before[i], *z[-1:])))

    def posterior(self, i: int, now: Tensor, before: Tensor, *above: Tensor) -> dist.TorchDistribution:
        """q(z^l_t | x_{1:t}, z^{l+1}_t), l = i + 1, from d^l after frame t and after the one before, and the latent
        above.
        """
        told: dist.TorchDistribution = self.heads[i](concatenate(now, *above))
        return precision_weighted(told, self.prior_heads[i](concatenate(before, *above))) if self.weighted else told
