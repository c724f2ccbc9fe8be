"""Pieces of a corpus, the units that a stream reads.

A piece is a Shar shard, or a group of utterances of any corpus. `corpora.streaming.stream` defines the order of pieces,
their assignment to processes, and the shuffling of sequences of neighbouring pieces.
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
from corpora.types import AudioFault, Utterance, refusal

__all__ = ["Loaded", "Piece", "load_piece", "pieces_of_shards", "pieces_of_utterances"]

GROUP = 64
"""Utterances per piece of a corpus without shards."""


class Piece(Protocol):
    """A part of a corpus.

    Attributes:
        name: Identifies it, for messages and fingerprints.
    """

    @property
    def name(self) -> str: ...

    def utterances(self) -> Iterator[Utterance]:
        """Its utterances, in a fixed order."""
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
        utterances: Number of its utterances.
        broken: Names of broken utterances, with the reason.
        short: Number of utterances that are shorter than a sequence.
    """

    segments: list[EncodedSequence]
    utterances: int
    broken: list[str]
    short: int


def pieces_of_shards(folder: Path, channel: int | None = None) -> list[Piece]:
    """The shards of a folder."""
    return [ShardPiece(shard, channel) for shard in shards_in(folder)]


def pieces_of_utterances(utterances: Sequence[Utterance]) -> list[Piece]:
    """Groups of consecutive utterances."""
    return [GroupPiece(utterances[start : start + GROUP]) for start in range(0, len(utterances), GROUP)]


def load_piece(piece: Piece, encoding: Encoding, sequence_frames: int | None, keep_short: bool, skip: bool) -> Loaded:
    """Read a piece and cut it into sequences, as `corpora.loading.sequences.load_sequences` does.

    Args:
        piece: The piece.
        encoding: The representation of its sequences.
        sequence_frames: Frames per sequence; None for whole utterances.
        keep_short: Whether to keep shorter utterances.
        skip: Whether to omit broken recordings.

    Raises:
        UserError: A recording is broken and `skip` is false.
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
                raise refusal(f"{utterance.file} of {piece.name}", fault.fault) from None
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
