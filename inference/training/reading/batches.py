"""Training data: the sequences of a split in batches, and the utterance of each sequence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from corpora.loading.sequences import Batch, Batches, Prepared, collate
from inference.training.distributed import ALONE, World
from models.core.grouping import SequenceIndex

__all__ = ["Data", "Prepare", "Shard", "UtteranceIndex", "on_host", "unchanged"]

Prepare = Callable[[Tensor], Tensor]
"""A function of the data of a batch (T, N, D), before the batch is used."""


def unchanged(x: Tensor) -> Tensor:
    """The data as they are."""
    return x


def on_host(x: Tensor, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Data of the type that is copied to the device; for CUDA in pinned memory, so that the copy is asynchronous."""
    x = x.to(dtype)
    return x.pin_memory() if device.type == "cuda" and not x.is_cuda else x


class UtteranceIndex(NamedTuple):
    """The utterance of each segment of a split.

    Attributes:
        files: names of the M utterances, in order of appearance.
        row: index of each segment's utterance.
        counts: segments of each utterance, (M,).
    """

    files: list[str]
    row: Tensor
    counts: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Prepared]) -> UtteranceIndex:
        """The index of all segments of a split."""
        rows: dict[str, int] = {}
        row = torch.tensor([rows.setdefault(item.file, len(rows)) for item in sequences])
        return cls(list(rows), row, torch.bincount(row, minlength=len(rows)))

    def rows(self, numbers: Sequence[int], **more: Any) -> SequenceIndex:
        """The `SequenceIndex` of some segments for model and guide.

        Args:
            numbers: indices of the segments in the split.
            more: further fields of `SequenceIndex`.
        """
        segments = torch.tensor(numbers)
        row = self.row[segments]
        return SequenceIndex(row, self.counts[row], segments, len(self.files), len(self.row), **more)

    def names(self) -> Tensor:
        """A hash of each utterance's name, (M,), which identifies the rows of a table."""
        digests = [hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest() for file in self.files]
        return torch.tensor([int.from_bytes(digest[:7], "big") for digest in digests])


class Shard(NamedTuple):
    """The part of a batch that one process computes.

    Attributes:
        batch: its sequences, padded to the longest one of the whole batch.
        indices: their indices in the split.
        places: their indices in the whole batch.
        sequences: sequences of the whole batch.
        frames: real frames of the whole batch.
        weight: 1, or 0 where the shard is excluded from the loss.
    """

    batch: Batch
    indices: list[int]
    places: list[int]
    sequences: int
    frames: int
    weight: float


@dataclass(frozen=True)
class Data:
    """The data of one split.

    Attributes:
        sequences: the sequences.
        batches: their order and grouping in batches.
        fingerprint: a hash of both, which changes with either of them.
        members: the utterance of each sequence.
        starts: the first frame of each sequence within its utterance in this epoch; None: the sequences as cut.
    """

    sequences: Sequence[Prepared]
    batches: Batches
    fingerprint: str
    members: UtteranceIndex
    starts: Sequence[int] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return len(self.batches)

    def of_epoch(self, epoch: int) -> Data:
        """The data of an epoch: with random starts, each drawn uniformly among the possible ones of its utterance;
        unchanged where sequences do not hold their utterances. A pure function of seed and epoch.
        """
        if not any(item.whole is not None for item in self.sequences[:1]):
            return self
        digest = hashlib.sha256(f"{self.batches.seed}/{epoch}/starts".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        choices = torch.tensor([len(cast(Tensor, item.whole)) - len(item.x) + 1 for item in self.sequences])
        drawn = torch.rand(len(choices), generator=generator, dtype=torch.float64) * choices
        return replace(self, starts=drawn.long().tolist())

    def batch(self, index: Sequence[int]) -> Batch:
        """The sequences of these indices as one padded batch."""
        items = [self.sequences[i] for i in index]
        if self.starts is not None:
            items = [_moved(item, self.starts[i]) for item, i in zip(items, index, strict=True)]
        return collate(items)

    def shard(self, index: Sequence[int], world: World = ALONE, prepare: Prepare = unchanged) -> Shard:
        """This process's part of a batch: some of its sequences, padded to the frames of the whole batch.

        A process without sequences gets the first one with weight 0. `prepare` is applied to the data of the batch.
        """
        mine = world.shard(len(index))
        lengths = [len(self.sequences[i].x) for i in index]
        places = mine or [0]
        numbers = [index[place] for place in places]
        batch = self.batch(numbers)
        missing = max(lengths) - len(batch.x)
        x = batch.x if missing == 0 else pad(batch.x, (0, 0, 0, 0, 0, missing))
        batch = batch._replace(x=prepare(x))
        return Shard(batch, numbers, places, len(index), sum(lengths), float(bool(mine)))

    def ahead(
        self,
        order: Sequence[Sequence[int]],
        world: World = ALONE,
        *,
        aside: bool = False,
        prepare: Prepare = unchanged,
    ) -> Generator[Shard, None, None]:
        """This process's shards of batches, one after the other.

        Args:
            order: indices of the sequences of each batch.
            world: the processes that share them.
            aside: whether a thread prepares the next batch during a training step. Meant for training on a GPU: on a
                CPU both threads would have a team of OpenMP threads, together more than there are cores; OpenMP then
                suspends idle threads between operations, and steps take three times as long.
            prepare: a function of the data of each batch, called where the batch is prepared.
        """
        if not aside:
            yield from (self.shard(index, world, prepare) for index in order)
            return
        with ThreadPoolExecutor(1) as pool:
            coming: Future[Shard] | None = None
            for index in order:
                current, coming = coming, pool.submit(self.shard, index, world, prepare)
                if current is not None:
                    yield current.result()
            if coming is not None:
                yield coming.result()


def _moved(item: Prepared, start: int) -> Prepared:
    """A sequence of the same utterance and length with another first frame."""
    return item._replace(x=cast(Tensor, item.whole)[start : start + len(item.x)], start=start)
