"""Teacher-forced conditionals: the conditionals of all frames given the true past, in one pass.

Scheduled sampling mixes them with those of the model given its own output (`inference.handlers.scheduled_sampling`).
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from models.core.effects import foreseen
from models.core.sites import Sites
from models.core.tensors import shift
from models.core.time_axis import Parallel

__all__ = ["teacher_forced"]


def teacher_forced(sites: Sites) -> dict[str, dist.TorchDistribution]:
    """The conditionals of all sites in all frames given the true past, (..., T, N), by site name.

    No site is registered, no random number drawn and no handler called, so it has no effect on a run of the same step
    in progress.

    Raises:
        ValueError: if data are missing, or a latent has no value yet.
    """
    if sites.step is None:
        raise ValueError("these sites have no step: call models.core.time_axis.run first")
    axis = _Teacher(sites)
    sites.step(axis)
    return axis.conditionals


class _Teacher(Parallel):
    """All frames at once with values that are set already, without calls of handlers."""

    def __init__(self, sites: Sites) -> None:
        super().__init__(sites)
        self.conditionals: dict[str, dist.TorchDistribution] = {}

    def prev(self, name: str) -> Tensor:
        return shift(self._settled(name))

    def once(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return self._settled(name)

    def sample(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        self.conditionals[name] = self.sites.expanded(distribution, self.sites.frames)
        return self._settled(name)

    def observe(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return self.sample(name, distribution)

    def _settled(self, name: str) -> Tensor:
        value = self.sites.value(name)
        if value is not None:
            return value
        shape = (*self.sites.leading, 1, self.sites.sequences, self.sites.sizes[name])
        values = (foreseen(f"{name}_{t}", shape, self.sites.like).value for t in range(self.sites.frames))
        frames = [v for v in values if v is not None]
        if len(frames) < self.sites.frames:
            raise ValueError(
                f"site '{name}' has no value yet: scheduled sampling with mix='h' needs data and the latents of a guide"
            )
        return torch.cat(frames, dim=-3)
