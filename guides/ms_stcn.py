r"""MS-STCN's guide, which conditions on the same variables as the exact posterior (Andersson et al., 2021, Eq. 13):

.. math:: q(z \mid x) = \prod_l \prod_\tau q(z^l_\tau \mid x_{< (\tau + 1) S_l}, z^{l+1:L}_\tau),

a Gaussian from an affine map of [h_l; d_l], not a product with the prior as in a ladder VAE (`guides.core.ladder`).
"""

from __future__ import annotations

from typing import cast

import pyro.distributions as dist
from torch import Tensor

from guides.core.ladder import LadderGuide, LadderGuideSettings, precision_weighted
from models.core.conditional import Conditionals
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import Parallel, TimeAxis
from models.dvae import DVAE
from models.ms_stcn import MSSTCN, LatentHead

__all__ = ["MSSTCNGuide"]


class MSSTCNGuide(LadderGuide):
    """q(z^l | x, z above), on the features of the model's ladder."""

    paper = "independent"
    stepwise = False

    def __init__(self, model: DVAE, settings: LadderGuideSettings) -> None:
        super().__init__(model, settings)
        ours = cast(MSSTCN, model)
        self.ladder = ours.ladder
        if self.weighted:
            self.prior_heads = ours.prior_heads
        self.heads = Conditionals(
            LatentHead(2 * width, n) for width, n in zip(ours.ladder.widths, ours.z_dims, strict=True) if n
        )

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        d = self.ladder.features(self.input(sites.data["x"]), sites)

        def sample(tau: TimeAxis, i: int, h: Tensor) -> Tensor:
            return tau.sample(f"layer{i + 1}", self.posterior(i, h, tau.feature(d[i])))

        if self.heads:
            self.ladder.sample_top_down(Parallel(sites), sample, d=d)

    def posterior(self, i: int, h: Tensor, d: Tensor) -> dist.TorchDistribution:
        """q(z^l | x, z above), Eq. 13, l = i + 1."""
        inferred = self.heads[i](concatenate(h, d))
        return precision_weighted(inferred, self.prior_heads[i](h)) if self.weighted else inferred
