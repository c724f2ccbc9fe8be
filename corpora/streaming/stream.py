r"""The sequences of an epoch, in an order that is a function of seed, epoch and the number of processes.

The pieces of a corpus are shuffled by the seed in every epoch, and piece k is read by process k mod K. A process reads
its pieces in windows of a few pieces; the sequences of a window are shuffled together, and windows follow one another.
Each sequence is therefore used once over all processes, and a position in the epoch is two numbers: the window, and the
number of its sequences already used. To resume, only the pieces of that window are read again.

A sequence is released when it is used, and the next window is read piece by piece as the present one empties. A process
therefore holds the sequences of one window and of one further piece for each worker, however many pieces there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from corpora.streaming.encoding import EncodedSequence, Encoding
from corpora.streaming.pieces import Loaded, Piece, load_piece

__all__ = ["START", "Counts", "Position", "Stream"]


class Position(NamedTuple):
    """A position in a process's part of an epoch: index of the window, and number of its sequences already used."""

    window: int = 0
    seen: int = 0


START = Position()


@dataclass
class Counts:
    """Counts of what a process has read in an epoch."""

    utterances: int = 0
    sequences: int = 0
    short: int = 0
    broken: list[str] = field(default_factory=list)

    def add(self, loaded: Loaded) -> None:
        """Count a piece."""
        self.utterances += loaded.utterances
        self.sequences += len(loaded.segments)
        self.short += loaded.short
        self.broken += loaded.broken


@dataclass(frozen=True)
class Stream:
    """A corpus that is read during training.

    Attributes:
        pieces: Its pieces.
        encoding: The representation of its sequences.
        sequence_frames: Frames per sequence; None for whole utterances.
        keep_short: Whether to keep shorter utterances.
        skip: Whether to omit broken recordings.
        seed: The seed of the order.
        window: Number of pieces whose sequences are shuffled together.
        workers: Threads that read and decode; libsndfile releases Python's global lock.
    """

    pieces: Sequence[Piece]
    encoding: Encoding
    sequence_frames: int | None
    keep_short: bool = False
    skip: bool = False
    seed: int = 0
    window: int = 4
    workers: int = 1

    def fingerprint(self) -> str:
        """A hash of the pieces and of everything that determines the order of their sequences."""
        order = (self.sequence_frames, self.keep_short, self.skip, self.seed, self.window)
        names = [piece.name for piece in self.pieces]
        return hashlib.sha256(repr((order, names)).encode("utf-8", "surrogateescape")).hexdigest()

    def windows(self, epoch: int, rank: int = 0, size: int = 1) -> list[list[int]]:
        """Indices of the pieces that a process reads in an epoch, by window."""
        order = self._permutation(len(self.pieces), epoch, "pieces")[rank::size]
        return [order[start : start + self.window] for start in range(0, len(order), self.window)]

    def sequences(
        self, epoch: int, rank: int = 0, size: int = 1, position: Position = START, counts: Counts | None = None
    ) -> Generator[tuple[EncodedSequence, Position], None, None]:
        """The sequences of a process in an epoch from a position on, each with the position after it.

        Raises:
            UserError: A recording is broken and `skip` is false.
        """
        windows = self.windows(epoch, rank, size)
        ahead = max(1, self.workers)
        # One thread of computation each, as torch otherwise starts a team of them for every calling thread.
        with ThreadPoolExecutor(ahead, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            coming: list[Future[Loaded]] = []
            try:
                for number in range(position.window, len(windows)):
                    window, following = windows[number], windows[number + 1] if number + 1 < len(windows) else []
                    coming += [pool.submit(self._load, piece) for piece in window[len(coming) :]]
                    segments = _gathered(coming, counts)
                    order = self._permutation(len(segments), epoch, window[0])
                    seen = position.seen if number == position.window else 0
                    left = [segments[place] for place in reversed(order[seen:])]
                    segments.clear()
                    while left:
                        used = len(order) - len(left)
                        due = ahead + len(window) * used // len(order)
                        coming += [pool.submit(self._load, piece) for piece in following[len(coming) : due]]
                        segment = left.pop()
                        yield segment, Position(number, used + 1) if left else Position(number + 1)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, piece: int) -> Loaded:
        return load_piece(self.pieces[piece], self.encoding, self.sequence_frames, self.keep_short, self.skip)

    def _permutation(self, count: int, epoch: int, what: object) -> list[int]:
        digest = hashlib.sha256(f"{self.seed}/{epoch}/{what}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        permutation: list[int] = torch.randperm(count, generator=generator).tolist()
        return permutation


def _gathered(coming: list[Future[Loaded]], counts: Counts | None) -> list[EncodedSequence]:
    """The sequences of pieces, which are removed from `coming` as they are taken."""
    segments: list[EncodedSequence] = []
    while coming:
        loaded = coming.pop(0).result()
        segments += loaded.segments
        if counts is not None:
            counts.add(loaded)
    return segments
