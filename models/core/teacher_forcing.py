"""The teacher: what a model says of every frame when it sees the true past, all frames in one pass.

Scheduled sampling compares the model that is fed its own output with this one
(`inference.handlers.scheduled_sampling`).
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

    Nothing is registered, no random number drawn, and no handler asked: a run of the same step that is under way
    does not notice.

    Raises:
        ValueError: where data are missing, or a latent that nobody has set.
    """
    if sites.step is None:
        raise ValueError("no step is being run over these sites: enter by models.core.time_axis.run")
    axis = _Teacher(sites)
    sites.step(axis)
    return axis.conditionals


class _Teacher(Parallel):
    """All frames at once with settled values, unseen by handlers."""

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
        asked = (foreseen(f"{name}_{t}", shape, self.sites.like).value for t in range(self.sites.frames))
        frames = [v for v in asked if v is not None]
        if len(frames) < self.sites.frames:
            raise ValueError(
                f"site '{name}' has no value for the teacher to see: this form of scheduled sampling needs data and "
                "the latents of a guide"
            )
        return torch.cat(frames, dim=-3)
