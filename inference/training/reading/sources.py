"""Opening the data of a training from its settings: in memory, or as a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from corpora.frontends.base import FrontEnd
from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import Batches, Prepared, load_split
from corpora.streaming.choice import open_training_set
from corpora.streaming.encoding import encoding_of
from corpora.streaming.pieces import Piece, load_piece
from corpora.streaming.stream import Stream
from corpora.types import Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import Settings
from inference.training.distributed import World
from inference.training.reading.batches import Data, UtteranceIndex
from inference.training.reading.readers import StreamedData
from inference.training.sequence_table import Blocks

__all__ = ["read_data"]

SAMPLE = 1000
"""Number of sequences for the statistics of the model's input, with streamed data."""

Say = Callable[[str], None]


def read_data(settings: Settings, say: Say, *, hierarchical: bool, world: World) -> tuple[Data | StreamedData, Data]:
    """The training set, in memory or as a stream, and the validation set, in memory.

    Raises:
        UserError: The corpus cannot be read, or is streamed although settings need it in memory.
    """
    frontend = open_frontend(settings.data, settings.model.bins)
    corpus, pieces = open_training_set(settings.data, frontend, say)
    say(f"corpus {corpus.name} {corpus.root}".rstrip())
    if pieces is None:
        held = _in_memory(settings, corpus, "train", frontend, say, hierarchical=hierarchical, progress=world.main)
        return held, _in_memory(settings, corpus, "valid", frontend, say, hierarchical=False, progress=world.main)
    _refuse_in_memory_only(settings, hierarchical)
    streamed = _streamed(settings, pieces, frontend, say, world)
    return streamed, _in_memory(settings, corpus, "valid", frontend, say, hierarchical=False, progress=world.main)


def _in_memory(
    settings: Settings, corpus: Corpus, split: str, frontend: FrontEnd, say: Say, *, hierarchical: bool, progress: bool
) -> Data:
    data, train = settings.data, settings.train
    shuffle = split == "train"
    movable = shuffle and data.segment_starts == "random"
    sequences = load_split(corpus, split, frontend, data, say, cut=True, movable=movable, progress=progress)
    members, at_once = UtteranceIndex.of(sequences), train.discriminative.sequences
    batches = (
        Blocks(sequences, train.batch_size, settings.seed, members, at_once)
        if hierarchical and at_once is not None
        else Batches(sequences, train.batch_size, settings.seed, shuffle=shuffle, bucket=train.bucket)
    )
    what = [(item.file, item.start, len(item.x)) for item in sequences]
    order: tuple[object, ...] = (settings.seed, train.batch_size, train.bucket)
    order += () if at_once is None else (at_once,)
    order += ("random starts",) if movable else ()
    fingerprint = hashlib.sha256(repr((order, what)).encode()).hexdigest()
    return Data(sequences, batches, fingerprint, members)


def _streamed(settings: Settings, pieces: Sequence[Piece], frontend: FrontEnd, say: Say, world: World) -> StreamedData:
    data, train = settings.data, settings.train
    if min(len(pieces), train.batch_size) < world.size:
        raise UserError(
            f"{len(pieces)} shards and train.batch_size={train.batch_size} are too few for {world.size} processes, "
            "each of which needs one. Use smaller shards (python -m corpora.shard --size), or fewer processes."
        )
    stream = Stream(
        pieces,
        encoding_of(frontend),
        data.sequence_frames,
        keep_short=data.short_utterances == "keep",
        skip=data.on_error == "skip",
        seed=settings.seed,
        window=data.shuffle_shards,
        workers=data.workers,
    )
    first = [number for window in stream.windows(0) for number in window]
    loaded = None
    for number in first[: data.shuffle_shards]:
        loaded = load_piece(pieces[number], stream.encoding, data.sequence_frames, stream.keep_short, stream.skip)
        if loaded.segments:
            break
    if loaded is None or not loaded.segments:
        raise UserError(
            f"no sequence of {data.sequence_frames} frames in the first {data.shuffle_shards} shards of the training "
            "set. Reduce data.sequence_frames, or check the recordings."
        )
    sample = []
    for segment in loaded.segments[:SAMPLE]:
        x = stream.encoding.features([segment], torch.device("cpu"))[:, 0]
        sample.append(Prepared(x, segment.file, segment.speaker, segment.start))
    sequences = len(loaded.segments) * len(pieces)
    say(
        f"train: streamed from {len(pieces)} shards, such as {pieces[0].name}, {data.shuffle_shards} shuffled "
        f"together; about {sequences} sequences"
    )
    order = (stream.fingerprint(), settings.seed, train.batch_size)
    fingerprint = hashlib.sha256(repr(order).encode()).hexdigest()
    return StreamedData(stream, train.batch_size, -(-sequences // train.batch_size), sample, frontend.dim, fingerprint)


def _refuse_in_memory_only(settings: Settings, hierarchical: bool) -> None:
    """Refuse settings that need the whole training set in memory."""
    needing = {
        f"model '{settings.model.name}', whose table has a row for each utterance": hierarchical,
        "data.segment_starts=random": settings.data.segment_starts == "random",
        "data.cache": settings.data.cache is not None,
        "data.conditions": settings.data.conditions is not None and settings.data.corpus == "lhotse",
    }
    for what, is_set in needing.items():
        if is_set:
            raise UserError(
                f"{what} needs the training set in memory, but it is streamed. Set data.stream=false, or omit it."
            )
