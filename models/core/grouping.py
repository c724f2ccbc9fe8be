"""Which sequence of a corpus each segment of a batch is of: what a model with latents above its segments is told."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SequenceIndex", "SharedSiteWeight"]


class SequenceIndex(NamedTuple):
    """The sequences that the N segments of a batch are of, by their rows among the M sequences of a corpus.

    Attributes:
        row: that of each segment's sequence, (N,) int64.
        counts: the segments that this sequence has in the corpus, (N,).
        numbers: which segment of the corpus each is, (N,) int64.
        sequences: M.
        segments: segments of the corpus.
        trained: whether the rows are those of the guide's table.
        values: values of the sequence latents, (M, L), for sequences that the table does not have, if they are known.
        active: the rows, sorted, among which a sequence is to be told from the others, (K,); None is all M.
        above: the same of the sessions that the sequences are of, for a model with latents of these; None: every
            sequence is a session of its own.
    """

    row: Tensor
    counts: Tensor
    numbers: Tensor
    sequences: int
    segments: int
    trained: bool = False
    values: Tensor | None = None
    active: Tensor | None = None
    above: SequenceIndex | None = None

    @classmethod
    def alone(cls, segments: int) -> SequenceIndex:
        """Every segment a sequence of its own.

        Example:
            >>> SequenceIndex.alone(2).row.tolist(), SequenceIndex.alone(2).sequences
            ([0, 1], 2)
        """
        each = torch.arange(segments)
        return cls(each, torch.ones(segments), each, segments, segments)

    @classmethod
    def whole(cls, row: Tensor) -> SequenceIndex:
        """A batch that holds all segments of its sequences: the row of each, (N,), rows 0 .. M-1 all present."""
        per_row = torch.bincount(row)
        return cls(row, per_row[row], torch.arange(len(row)), len(per_row), len(row))

    @property
    def sessions(self) -> SequenceIndex:
        """The sessions that the segments are of."""
        return self if self.above is None else self.above

    @property
    def share(self) -> float:
        """The part of the corpus' segments that is in the batch."""
        return len(self.row) / self.segments


class SharedSiteWeight(NamedTuple):
    """How the segments of a batch bear a site that they share: segment n has 1 / counts[n] of entry entry[n]."""

    entry: Tensor
    counts: Tensor

    def per_segment(self, density: Tensor) -> Tensor:
        """From a density of each entry (..., U) to its part of each segment (..., N)."""
        return density[..., self.entry] / self.counts
