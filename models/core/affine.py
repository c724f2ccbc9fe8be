"""Affine maps that are computed together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

__all__ = ["AffineMaps"]


class AffineMaps(nn.Linear):
    """Several affine maps of the same input, kept as one so that they cost one product: their outputs side by side.

    Args:
        in_dim: size of the input.
        sizes: size of the output of each.
    """

    def __init__(self, in_dim: int, sizes: Sequence[int]) -> None:
        super().__init__(in_dim, sum(sizes))
        self.sizes = list(sizes)
