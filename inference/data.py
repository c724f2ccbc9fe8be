"""What training reads: the sequences of a split in batches, and the utterances that they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corpora.sequences import Batch, Batches, Prepared, collate
from models.rows import Rows

__all__ = ["Data", "Members"]


class Members(NamedTuple):
    """Which utterance each segment of a split is of.

    Attributes:
        files: the utterances' names, M of them, in the order in which they come.
        row: the utterance of each segment.
        counts: segments of each utterance, (M,).
    """

    files: list[str]
    row: Tensor
    counts: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Prepared]) -> Members:
        """Those of all segments of a split."""
        rows: dict[str, int] = {}
        row = torch.tensor([rows.setdefault(item.file, len(rows)) for item in sequences])
        return cls(list(rows), row, torch.bincount(row, minlength=len(rows)))

    def rows(self, numbers: Sequence[int], **more: Any) -> Rows:
        """What a model is told of the segments of these numbers; `more` are fields of `Rows`."""
        chosen = torch.tensor(numbers)
        row = self.row[chosen]
        return Rows(row, self.counts[row], chosen, len(self.files), len(self.row), **more)

    def names(self) -> Tensor:
        """A number for each utterance's name, (M,), to know a table's rows by."""
        digests = [hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest() for file in self.files]
        return torch.tensor([int.from_bytes(digest[:7], "big") for digest in digests])


@dataclass(frozen=True)
class Data:
    """Sequences of one split, how they come in batches, a name for both that changes with them, and whose they are."""

    sequences: Sequence[Prepared]
    batches: Batches
    fingerprint: str
    members: Members

    def batch(self, index: Sequence[int]) -> Batch:
        """The sequences of these numbers as one padded batch."""
        return collate([self.sequences[i] for i in index])
