"""What training reads: the sequences of a split in batches, and the utterances that they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from corpora.loading.sequences import Batch, Batches, Prepared, collate
from inference.training.distributed import ALONE, World
from models.core.grouping import SequenceIndex

__all__ = ["Data", "UtteranceIndex", "Shard"]


class UtteranceIndex(NamedTuple):
    """Which utterance each segment of a split is of.

    Attributes:
        files: the utterances' names, M of them, in the order in which they come.
        row: the utterance of each segment.
        counts: segments of each utterance, (M,).
        above: the same of their speakers.
    """

    files: list[str]
    row: Tensor
    counts: Tensor
    above: UtteranceIndex | None = None

    @classmethod
    def of(cls, sequences: Sequence[Prepared]) -> UtteranceIndex:
        """Those of all segments of a split; where nobody is known to speak every utterance has a speaker of its own."""
        speakers = cls._named([item.speaker or item.file for item in sequences])
        return cls._named([item.file for item in sequences])._replace(above=speakers)

    @classmethod
    def _named(cls, names: Sequence[str]) -> UtteranceIndex:
        rows: dict[str, int] = {}
        row = torch.tensor([rows.setdefault(name, len(rows)) for name in names])
        return cls(list(rows), row, torch.bincount(row, minlength=len(rows)))

    @property
    def speakers(self) -> UtteranceIndex:
        """Which speaker each segment is of."""
        return self if self.above is None else self.above

    @property
    def speaker(self) -> Tensor:
        """The speaker of each utterance, (M,)."""
        return torch.zeros_like(self.counts).scatter(0, self.row, self.speakers.row)

    def rows(self, numbers: Sequence[int], of_speakers: Tensor | None = None, **more: Any) -> SequenceIndex:
        """What a model is told of the segments of these numbers; `more` are fields of `SequenceIndex`, `of_speakers`
        the values of latents of the speakers.
        """
        chosen = torch.tensor(numbers)
        row = self.row[chosen]
        if self.above is not None:
            more["above"] = self.above.rows(numbers, trained=more.get("trained", False), values=of_speakers)
        return SequenceIndex(row, self.counts[row], chosen, len(self.files), len(self.row), **more)

    def names(self) -> Tensor:
        """A number for each utterance's name, (M,), to know a table's rows by."""
        digests = [hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest() for file in self.files]
        return torch.tensor([int.from_bytes(digest[:7], "big") for digest in digests])


class Shard(NamedTuple):
    """What of a batch a process computes.

    Attributes:
        batch: its sequences, with the frames of the longest one of the whole batch.
        chosen: their numbers in the split.
        places: their places in the whole batch.
        sequences: how many the whole batch has.
        frames: the real frames of the whole batch.
        weight: 1, or 0 where the part counts for nothing.
    """

    batch: Batch
    chosen: list[int]
    places: list[int]
    sequences: int
    frames: int
    weight: float


@dataclass(frozen=True)
class Data:
    """Sequences of one split, how they come in batches, a name for both that changes with them, and whose they are.

    Attributes:
        starts: the first frame of each sequence within its utterance in this pass over the split; None: as they are.
    """

    sequences: Sequence[Prepared]
    batches: Batches
    fingerprint: str
    members: UtteranceIndex
    starts: Sequence[int] | None = None

    def of_epoch(self, epoch: int) -> Data:
        """The same with starts drawn for an epoch, each uniformly among those that its utterance has room for, where
        sequences hold their utterances; else as it is. A pure function of seed and epoch.
        """
        if not any(item.whole is not None for item in self.sequences[:1]):
            return self
        digest = hashlib.sha256(f"{self.batches.seed}/{epoch}/starts".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        room = torch.tensor([len(cast(Tensor, item.whole)) - len(item.x) + 1 for item in self.sequences])
        drawn = torch.rand(len(room), generator=generator, dtype=torch.float64) * room
        return replace(self, starts=drawn.long().tolist())

    def batch(self, index: Sequence[int]) -> Batch:
        """The sequences of these numbers as one padded batch."""
        items = [self.sequences[i] for i in index]
        if self.starts is not None:
            items = [_moved(item, self.starts[i]) for item, i in zip(items, index, strict=True)]
        return collate(items)

    def shard(self, index: Sequence[int], world: World = ALONE) -> Shard:
        """What of a batch is this process's: as many frames as the whole batch has, and some of its sequences.

        A process without any gets the first one, which then counts for nothing.
        """
        mine = world.shard(len(index))
        lengths = [len(self.sequences[i].x) for i in index]
        places = mine or [0]
        chosen = [index[place] for place in places]
        batch = self.batch(chosen)
        short = max(lengths) - len(batch.x)
        batch = batch if short == 0 else batch._replace(x=pad(batch.x, (0, 0, 0, 0, 0, short)))
        return Shard(batch, chosen, places, len(index), sum(lengths), float(bool(mine)))

    def ahead(
        self, order: Sequence[Sequence[int]], world: World = ALONE, *, aside: bool = False
    ) -> Generator[Shard, None, None]:
        """This process's parts of batches.

        Args:
            order: the sequences of each batch.
            world: the processes that share them.
            aside: a thread puts the next one together while one is trained on. For training on a GPU: on a CPU two
                threads would have a team of OpenMP threads each, more than there are cores, and OpenMP then lets
                all of them sleep between two operations, which makes steps three times as long.
        """
        if not aside:
            yield from (self.shard(index, world) for index in order)
            return
        with ThreadPoolExecutor(1) as pool:
            coming: Future[Shard] | None = None
            for index in order:
                current, coming = coming, pool.submit(self.shard, index, world)
                if current is not None:
                    yield current.result()
            if coming is not None:
                yield coming.result()


def _moved(item: Prepared, start: int) -> Prepared:
    """As many frames of the same utterance, from another one on."""
    return item._replace(x=cast(Tensor, item.whole)[start : start + len(item.x)], start=start)
