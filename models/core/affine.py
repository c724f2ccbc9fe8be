"""Affine maps of the same input, computed in one product."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

__all__ = ["AffineMaps"]


class AffineMaps(nn.Linear):
    """Several affine maps of the same input in one weight matrix; their outputs are concatenated.

    Args:
        in_dim: size of the input.
        sizes: output size of each map.
    """

    def __init__(self, in_dim: int, sizes: Sequence[int]) -> None:
        super().__init__(in_dim, sum(sizes))
        self.sizes = list(sizes)
