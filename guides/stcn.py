r"""STCN's guide, precision-weighted (Aksan & Hilliges, 2019):

.. math::
    q(z \mid x) &= \prod_t \prod_l q(z^l_t \mid x_{1:t}, z^{l+1}_t) \tag{1} \\
    q(z^l_t \mid x_{1:t}, z^{l+1}_t) &\propto N(\hat\mu^l(d^l_t, z^{l+1}_t), \hat\sigma^l(d^l_t, z^{l+1}_t)^2)\,
        p(z^l_t \mid x_{1:t-1}, z^{l+1}_t), \tag{2}

the product with the prior as in Sonderby et al. (2016); numbered here, of the paper's part on the inference model.

It takes the convolutional features of the prior, one frame later. The exact posterior also depends on the future of x,
which is decoded from latents of earlier frames. The public code passes a variance where a standard deviation is
expected, and conditions prior and posterior on different draws; here the objective is a valid bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import pad

from guides.core.ladder import LadderGuide, LadderGuideSettings, precision_weighted
from models.core.conditional import Conditionals
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
        self.heads = Conditionals(
            DeepLatentHead(n, m, ours.hidden) for n, m in zip(ours.head_dims, ours.z_dims, strict=True)
        )

    @classmethod
    def parents(cls, settings: Any, latents: Sequence[str] = ("layer1",)) -> Parents:
        return {site: ("x[:t+1]", *(f"{m}[t]" for m in latents[:i][-1:])) for i, site in enumerate(latents)}

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        """[d^1; ...; d^L] of a zero frame before the first one, and of all frames: (T + 1, N, C)."""
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
        """q(z^l_t | x_{1:t}, z^{l+1}_t), l = i + 1: Eq. 2 of this module, from d^l after frame t and after the one
        before, and the latent above.
        """
        inferred = self.heads[i](concatenate(now, *above))
        if not self.weighted:
            return inferred
        return precision_weighted(inferred, self.prior_heads[i](concatenate(before, *above)))
