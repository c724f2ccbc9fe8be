"""A point-mass guide: its parameter is z itself."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from guides.core.guide import Guide
from inference.handlers.mean_latents import mean_latents
from inference.particles.log_weights import samples
from models.core.effects import Given
from models.core.sites import Sites
from models.dvae import DVAE

__all__ = ["Point"]


class Point(Guide):
    r"""q(z) = \delta(z - \zeta); the objective is :math:`\log p(y, \zeta)`, without the entropy of the point mass.

    Args:
        model: the model of the latents.
        values: zeta by site name, (T, N, L), or (N, L) outside time.
        times: the name of each latent's time plate, ``"time"`` or ``"time_2"``; None outside time.
    """

    stepwise = False

    def __init__(self, model: DVAE, values: Mapping[str, Tensor], times: Mapping[str, str | None]) -> None:
        super().__init__(model)
        self.zeta = nn.ParameterDict({name: nn.Parameter(value.detach().clone()) for name, value in values.items()})
        self.times = times

    @classmethod
    @torch.no_grad()
    def of(cls, model: DVAE, guide: Guide, x: Tensor, lengths: Tensor) -> Point:
        """A point mass at the means of a guide."""
        with mean_latents():
            drawn = samples(poutine.trace(guide).get_trace(x, lengths))
        times = {
            name: next((f.name for f in site["cond_indep_stack"] if f.name.startswith("time")), None)
            for name, site in drawn.items()
        }
        return cls(model, {name: site["value"] for name, site in drawn.items()}, times)

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        for name, zeta in self.zeta.items():
            time = self.times[name]
            if time is None:
                with Given({name: zeta}):
                    sites.once(name, dist.Delta(zeta, event_dim=1))
            else:
                scale = sites.coarser(int(time.partition("_")[2] or 1))
                scale.register(name, dist.Delta(zeta, event_dim=1), zeta)
