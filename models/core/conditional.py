"""The types of networks whose outputs are distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
from torch import nn

__all__ = ["Conditional", "Conditionals"]


class Conditional(nn.Module):
    """A network whose output is a distribution: the last layer of a conditional, or all of it."""

    if TYPE_CHECKING:

        def __call__(self, *inputs: Any) -> dist.TorchDistribution: ...


class Conditionals(nn.ModuleList):
    """A list of such networks, one for each layer of latents."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> Conditional: ...  # type: ignore[override]  # no slices
