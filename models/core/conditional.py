"""The type of a network whose output is a distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
from torch import nn

__all__ = ["Conditional"]


class Conditional(nn.Module):
    """A network whose output is a distribution: the last layer of a conditional, or all of it."""

    if TYPE_CHECKING:

        def __call__(self, *inputs: Any) -> dist.TorchDistribution: ...
