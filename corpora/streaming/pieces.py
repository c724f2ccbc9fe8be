"""What a stream is read from: pieces of a corpus, each read whole, one after another.

A piece is a Shar shard, or so many utterances of any corpus. The order in which pieces are read, which process reads
which, and how sequences of neighbouring pieces are mixed is in `corpora.streaming.stream`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from corpora.audio.io import one_channel
from corpora.recipes.lhotse.cuts import utterance_of
from corpora.recipes.lhotse.shar import ShardFiles, read_cuts, shards_in
from corpora.streaming.encoding import EncodedSequence, Encoding
from corpora.types import AudioFault, Utterance
from dvae_pyro.errors import UserError

__all__ = ["Loaded", "Piece", "load_piece", "pieces_of_shards", "pieces_of_utterances"]

GROUP = 64
"""Utterances of a piece of a corpus that has no shards."""


class Piece(Protocol):
    """A part of a corpus.

    Attributes:
        name: Says which one it is, for messages and to know the corpus by.
    """

    @property
    def name(self) -> str: ...

    def utterances(self) -> Iterator[Utterance]:
        """Its utterances, in an order that is always the same."""
        ...


class ShardPiece(NamedTuple):
    """A Shar shard."""

    shard: ShardFiles
    channel: int | None

    @property
    def name(self) -> str:
        return f"{self.shard.cuts.parent.name}/{self.shard.cuts.name}"

    def utterances(self) -> Iterator[Utterance]:
        for cut in read_cuts(self.shard):
            utterance = utterance_of(cut)
            if self.channel is not None:
                load = functools.partial(one_channel, utterance.load, self.channel)
                utterance = Utterance(utterance.file, utterance.speaker, load, utterance.labels)
            yield utterance


class GroupPiece(NamedTuple):
    """Some utterances of a corpus."""

    group: Sequence[Utterance]

    @property
    def name(self) -> str:
        return f"{len(self.group)} utterances from {self.group[0].file}"

    def utterances(self) -> Iterator[Utterance]:
        yield from self.group


class Loaded(NamedTuple):
    """A piece that has been read.

    Attributes:
        segments: Its sequences.
        utterances: How many utterances it has.
        broken: Those that cannot be used, with the reason.
        short: How many are shorter than a sequence.
    """

    segments: list[EncodedSequence]
    utterances: int
    broken: list[str]
    short: int


def pieces_of_shards(folder: Path, channel: int | None = None) -> list[Piece]:
    """The shards of a folder."""
    return [ShardPiece(shard, channel) for shard in shards_in(folder)]


def pieces_of_utterances(utterances: Sequence[Utterance]) -> list[Piece]:
    """Utterances, in this order, in groups."""
    return [GroupPiece(utterances[start : start + GROUP]) for start in range(0, len(utterances), GROUP)]


def load_piece(piece: Piece, encoding: Encoding, sequence_frames: int | None, keep_short: bool, skip: bool) -> Loaded:
    """Read a piece and cut it into sequences, as `corpora.loading.sequences.load_sequences` does.

    Args:
        piece: What to read.
        encoding: How sequences wait for their features.
        sequence_frames: Frames of a sequence; None is whole utterances.
        keep_short: Whether to keep utterances that are shorter.
        skip: Whether to leave out broken recordings.

    Raises:
        UserError: A recording is broken and is not to be skipped.
    """
    segments: list[EncodedSequence] = []
    broken: list[str] = []
    count = short = 0
    for utterance in piece.utterances():
        count += 1
        try:
            data, scale, frames = encoding.read(utterance.load())
        except AudioFault as fault:
            if not skip:
                raise UserError(
                    f"cannot use {utterance.file} of {piece.name}: it {fault.fault}.\n"
                    "Mend or remove it, or leave out all broken recordings with data.on_error=skip."
                ) from None
            broken.append(f"{utterance.file} ({fault.fault})")
            continue
        length = frames if sequence_frames is None else sequence_frames
        if frames < length:
            short += 1
            length = frames if keep_short else length
        for start in range(0, frames - length + 1, length):
            cut = encoding.cut(data, start, length)
            segments.append(EncodedSequence(cut, scale, length, utterance.file, utterance.speaker, start))
    return Loaded(segments, count, broken, short)
