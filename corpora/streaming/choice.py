"""The decision whether a training set is streamed, and from which pieces."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from corpora.frontends.base import FrontEnd
from corpora.recipes.lhotse.recipe import manifests_of
from corpora.recipes.lhotse.shar import is_shar
from corpora.registry import open_corpus
from corpora.settings import DataSettings
from corpora.streaming.pieces import Piece, pieces_of_shards, pieces_of_utterances
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError

__all__ = ["open_training_set", "expected_bytes"]

#: Approximate ratio of the size of 16-bit samples to the size of the file, by file type.
EXPANSION = {".flac": 2.0, ".mp3": 12.0, ".ogg": 12.0, ".oga": 12.0, ".opus": 16.0}
GIGABYTE = 1e9
LOOKED_AT = 2000
"""Largest number of files whose sizes are read for the estimate."""

Say = Callable[[str], None]


def open_training_set(settings: DataSettings, frontend: FrontEnd, say: Say) -> tuple[Corpus, list[Piece] | None]:
    """Open a corpus for training.

    Args:
        settings: The ``data`` settings.
        frontend: The front end.
        say: Called with a line on why a corpus is streamed.

    Returns:
        The corpus with the splits that are held in memory, and the pieces that the training set is streamed from; None
        if it is held in memory too.

    Raises:
        UserError: The corpus cannot be opened, or the folder of the training shards is ambiguous.
    """
    shards = _training_shards(settings) if settings.corpus == "lhotse" else None
    if shards is not None and settings.stream is not False:
        return open_corpus(settings, settings.seed, ("valid",)), pieces_of_shards(shards, settings.channel)
    corpus = open_corpus(settings, settings.seed, ("train", "valid"))
    utterances = corpus.splits["train"]
    stream = bool(settings.stream)
    held = settings.stream is None and settings.cache is None  # a cache is mapped, and needs no memory
    if held and (expected := expected_bytes(utterances, frontend)) > settings.memory * GIGABYTE:
        stream = True
        say(
            f"train: features would need about {expected / GIGABYTE:.3g} GB, more than data.memory="
            f"{settings.memory:g}, so it is streamed (shards, written by python -m corpora.shard, are read faster)"
        )
    if not stream:
        return corpus, None
    shuffled = sorted(utterances, key=lambda utterance: _mixed(settings.seed, utterance.file))
    return corpus, pieces_of_utterances(shuffled)


def expected_bytes(utterances: Sequence[Utterance], frontend: FrontEnd) -> float:
    """An estimate of the bytes that the features of utterances need, from the sizes of their files; 0 if unknown.

    Recordings are assumed to have 16 bits per sample at the rate of the front end, and the usual compression ratio of
    their format. The sizes of a few thousand files, evenly spaced in the list, are extrapolated to all files.
    """
    paths = sorted({path for utterance in utterances for path in utterance.source if isinstance(path, Path)})
    some = paths[:: 1 + len(paths) // LOOKED_AT]
    total = 0.0
    for path in some:
        with contextlib.suppress(OSError):
            total += path.stat().st_size * EXPANSION.get(path.suffix.lower(), 1.0)
    total *= len(paths) / max(1, len(some))
    if frontend.rate == 0:  # frames, no sound
        return total
    return total / 2 / getattr(frontend, "hop", frontend.dim) * frontend.dim * 4


def _training_shards(settings: DataSettings) -> Path | None:
    """The folder of the training set's shards; None if there are no shards."""
    named = manifests_of(settings)
    shards = [(split, path) for split, path in named.values() if path.is_dir() and is_shar(path)]
    if not shards:
        return None
    train = [path for split, path in shards if split == "train"]
    if len(train) == 1:
        return train[0]
    if settings.stream is None and len(shards) == 1 and shards[0][0] is None:
        return None  # one folder of shards without splits is read into memory and split by the seed
    raise UserError(
        f"{settings.root or 'data.cuts'} has {len(train)} folders of shards for training, expected one to stream.\n"
        "Set it and a validation set: data.cuts.train=DIR data.cuts.valid=DIR; or set data.stream=false."
    )


def _mixed(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}/piece".encode("utf-8", "surrogateescape")).digest()
