"""Readers of training batches: from sequences in memory, or from a stream that is read during training.

A reader iterates over one epoch. Every process has its own; their methods are collective operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from corpora.loading.sequences import Batch, Prepared
from corpora.streaming.encoding import EncodedSequence
from corpora.streaming.stream import START, Counts, Position, Stream
from inference.training.distributed import World
from inference.training.reading.batches import Data, Prepare, Shard, unchanged

if TYPE_CHECKING:
    from inference.checkpoints.state import TrainState

__all__ = ["Reader", "StreamedData", "reader_of"]

FEW_BROKEN = 5


class Reader(Protocol):
    """The batches of an epoch, starting at a position.

    Attributes:
        finished: Whether no process has a further batch.
        position: The position after the last batch; None if the number of batches defines it.
    """

    @property
    def finished(self) -> bool: ...

    @property
    def position(self) -> Position | None: ...

    def __next__(self) -> Shard:
        """This process's shard of the next batch."""
        ...

    def remarks(self) -> list[str]:
        """Lines to print at the end of an epoch."""
        ...

    def close(self) -> None:
        """Stop background threads."""
        ...


@dataclass(frozen=True)
class StreamedData:
    """A training set that is read during training.

    Attributes:
        stream: The stream of its sequences.
        batch_size: Sequences per batch, over all processes.
        batches_per_epoch: Approximate number of batches per epoch.
        sequences: A sample of the sequences, for the statistics of the model's input.
        dim: D, values per frame.
        fingerprint: A hash of the data and their order.
    """

    stream: Stream
    batch_size: int
    batches_per_epoch: int
    sequences: Sequence[Prepared]
    dim: int
    fingerprint: str


def reader_of(
    data: Data | StreamedData, state: TrainState, world: World, device: torch.device, prepare: Prepare = unchanged
) -> Reader:
    """The reader of the batches after a state of training; `prepare` is applied to the data of each batch."""
    if isinstance(data, StreamedData):
        return _StreamReader(data, state.epoch, state.position, world, device, prepare)
    return _MemoryReader(data, state.epoch, state.batch, world, device, prepare)


class _MemoryReader:
    """Batches of sequences in memory."""

    position: Position | None = None

    def __init__(
        self, data: Data, epoch: int, batch: int, world: World, device: torch.device, prepare: Prepare
    ) -> None:
        order = data.batches.epoch(epoch)
        self.left = len(order) - batch
        aside = device.type != "cpu"
        self.parts = data.of_epoch(epoch).ahead(order[batch:], world, aside=aside, prepare=prepare)

    @property
    def finished(self) -> bool:
        return self.left == 0

    def __next__(self) -> Shard:
        self.left -= 1
        return next(self.parts)

    def remarks(self) -> list[str]:
        return []

    def close(self) -> None:
        self.parts.close()


class _Local(NamedTuple):
    """A process's sequences of a batch, x (T, N, D) if computed, the position after them, and whether more follow."""

    segments: list[EncodedSequence]
    x: Tensor | None
    position: Position
    more: bool


class _StreamReader:
    """Batches of a stream; a thread prepares the next batch, and computes its features if training is on the CPU.

    A process without remaining sequences contributes one of weight zero, until no process has any.
    """

    def __init__(
        self,
        data: StreamedData,
        epoch: int,
        position: Sequence[int] | None,
        world: World,
        device: torch.device,
        prepare: Prepare,
    ) -> None:
        self.data, self.world, self.device, self.epoch, self.prepare = data, world, device, epoch, prepare
        self.counts = Counts()
        self.start = START if position is None else Position(*position)
        self.position: Position | None = self.start
        self.source = data.stream.sequences(epoch, world.rank, world.size, self.start, self.counts)
        self.peeked: tuple[EncodedSequence, Position] | None = None
        self.share = len(world.shard(data.batch_size))
        self.pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self.coming = self.pool.submit(self._assemble)
        self.finished = not world.any(bool(self.coming.result().segments))

    def _assemble(self) -> _Local:
        """Take the sequences of the next batch."""
        segments: list[EncodedSequence] = []
        position = self.start
        taken = self.peeked if self.peeked is not None else next(self.source, None)
        while taken is not None and len(segments) < self.share:
            segments.append(taken[0])
            position = taken[1]
            taken = next(self.source, None)
        self.peeked = taken
        on_device = self.device.type != "cpu"
        x = self.data.stream.encoding.features(segments, self.device) if segments and not on_device else None
        return _Local(segments, x, position, taken is not None)

    def __next__(self) -> Shard:
        local = self.coming.result()
        if local.segments:
            self.position = local.position
        if local.more:
            self.coming = self.pool.submit(self._assemble)
        else:
            self.coming = self.pool.submit(_Local, [], None, local.position, False)
        rank, table = self.world.rank, torch.zeros(self.world.size, 4, dtype=torch.int64)
        lengths = [segment.frames for segment in local.segments]
        table[rank] = torch.tensor([len(lengths), sum(lengths), max(lengths, default=0), int(local.more)])
        counts, frames, longest, more = self.world.total(table).unbind(1)
        self.finished = not bool(more.any())
        batch = self._batch(local, int(longest.max()))
        first = int(counts[:rank].sum())
        places = list(range(first, first + len(lengths))) or [0]
        return Shard(batch, [], places, int(counts.sum()), int(frames.sum()), float(bool(lengths)))

    def _batch(self, local: _Local, longest: int) -> Batch:
        """The sequences of this process, padded to the longest of all processes."""
        if not local.segments:
            x = torch.ones(longest, 1, self.data.dim, device=self.device)
            return Batch(self.prepare(x), torch.tensor([longest]), (Prepared(x[:, 0], "", "", 0),))
        x = local.x if local.x is not None else self.data.stream.encoding.features(local.segments, self.device)
        x = pad(x, (0, 0, 0, 0, 0, longest - len(x))) if len(x) < longest else x
        lengths = torch.tensor([segment.frames for segment in local.segments])
        items = [Prepared(x[: s.frames, n], s.file, s.speaker, s.start) for n, s in enumerate(local.segments)]
        return Batch(self.prepare(x), lengths, tuple(items))

    def remarks(self) -> list[str]:
        counts = self.counts
        figures = torch.tensor([counts.utterances, counts.sequences, counts.short, len(counts.broken)])
        utterances, sequences, short, broken = self.world.total(figures).tolist()
        line = f"epoch {self.epoch + 1}: read {utterances} utterances, {sequences} sequences"
        line += f", left out {short} shorter than one" if short and not self.data.stream.keep_short else ""
        names = ", ".join(counts.broken[:FEW_BROKEN]) + (", ..." if broken > FEW_BROKEN else "")
        return [line + (f", skipped {broken} broken: {names}" if broken else "")]

    def close(self) -> None:
        self.pool.submit(self.source.close)
        self.pool.shutdown(wait=True, cancel_futures=False)
