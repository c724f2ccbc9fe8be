"""The index of sequences: which sequence of the corpus each segment of a batch belongs to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SequenceIndex", "SharedSiteWeight"]


class SequenceIndex(NamedTuple):
    """The sequence of each of the N segments of a batch, as its row among the M sequences of a corpus.

    Attributes:
        row: the row of each segment's sequence, (N,) int64.
        counts: number of segments of this sequence in the corpus, (N,).
        numbers: index of each segment in the corpus, (N,) int64.
        sequences: M.
        segments: number of segments of the corpus.
        trained: whether the rows are those of the guide's table.
        values: values of the sequence latents, (M, L), for sequences outside the table, if they are known.
        active: rows of the candidates of the discriminative objective, sorted, (K,); None: all M.
    """

    row: Tensor
    counts: Tensor
    numbers: Tensor
    sequences: int
    segments: int
    trained: bool = False
    values: Tensor | None = None
    active: Tensor | None = None

    @classmethod
    def alone(cls, segments: int) -> SequenceIndex:
        """An index in which every segment is a sequence of its own.

        Example:
            >>> SequenceIndex.alone(2).row.tolist(), SequenceIndex.alone(2).sequences
            ([0, 1], 2)
        """
        each = torch.arange(segments)
        return cls(each, torch.ones(segments), each, segments, segments)

    @classmethod
    def whole(cls, row: Tensor) -> SequenceIndex:
        """The index of a batch that holds all segments of its sequences; `row` (N,) has all of 0 .. M-1."""
        per_row = torch.bincount(row)
        return cls(row, per_row[row], torch.arange(len(row)), len(per_row), len(row))

    @property
    def share(self) -> float:
        """The fraction of the corpus' segments that is in the batch."""
        return len(self.row) / self.segments


class SharedSiteWeight(NamedTuple):
    """The weight of a shared site in each segment's density: 1 / counts[n] of entry entry[n] for segment n."""

    entry: Tensor
    counts: Tensor

    def per_segment(self, density: Tensor) -> Tensor:
        """From densities of the entries (..., U) to each segment's part (..., N)."""
        return density[..., self.entry] / self.counts
