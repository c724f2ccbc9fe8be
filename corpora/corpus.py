"""Corpora: named collections of utterances in splits, and the registry of their loaders.

A further corpus is a further module with a function ``open_NAME(settings, seed, needed) -> Corpus`` and one
line in `CORPORA`. Nothing is read from an utterance's file before its `Utterance.load` is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from corpora.audio import Sound
from corpora.settings import DataSettings
from inference.errors import UserError, nearest

__all__ = ["CORPORA", "SPLITS", "Corpus", "Sound", "Utterance", "open_corpus"]

SPLITS = ("train", "valid", "test")

#: Loader of each corpus as ``"module:function"``, imported when it is asked for.
CORPORA: dict[str, str] = {
    "synthetic": "corpora.synthetic:open_synthetic",
    "folder": "corpora.folder:open_folder",
    "wsj0": "corpora.wsj0:open_wsj0",
    "voicebank": "corpora.voicebank:open_voicebank",
    "timit": "corpora.timit:open_timit",
    "aurora4": "corpora.aurora4:open_aurora4",
    "kaldi": "corpora.kaldi:open_kaldi",
}


@dataclass(frozen=True)
class Utterance:
    """One recording.

    Attributes:
        file: Its name, unique in the corpus: a path relative to the corpus root, with forward slashes.
        speaker: Who speaks; equal names are the same speaker.
        load: Reads the samples.
        labels: What else is known about it; the loader says which keys.
    """

    file: str
    speaker: str
    load: Callable[[], Sound] = field(repr=False, compare=False)
    labels: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)


@dataclass
class Corpus:
    """Utterances in splits.

    Attributes:
        name: Its name in `CORPORA`.
        root: The folder it was read from; empty for a built-in corpus.
        splits: Utterances by split, in an order that does not depend on the file system. Only the splits that
            were asked for.
        notes: What the user should know about a split, by split: said when the split is loaded.
    """

    name: str
    root: str
    splits: dict[str, list[Utterance]]
    notes: dict[str, list[str]] = field(default_factory=dict)


def open_corpus(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the utterances of the corpus that the settings name.

    Args:
        settings: The ``data`` settings.
        seed: Decides what is left to chance: the split of a folder without one, the synthetic speech.
        needed: Splits that must be there; others are not looked for.

    Raises:
        UserError: The name is unknown, the root is missing, or a needed split has no utterance.
    """
    if settings.corpus not in CORPORA:
        raise UserError(
            f"unknown corpus {settings.corpus!r}, expected one of {', '.join(sorted(CORPORA))}."
            f"{nearest(settings.corpus, CORPORA)}"
        )
    for split in needed:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}, expected one of {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
    module, function = CORPORA[settings.corpus].split(":")
    corpus: Corpus = getattr(importlib.import_module(module), function)(settings, seed, needed)
    return corpus
