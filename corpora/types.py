"""What a corpus is made of: recordings, utterances and their splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError

__all__ = ["AudioFault", "Corpus", "Frames", "SPLITS", "Sound", "Utterance", "refusal"]


SPLITS = ("train", "valid", "test")


class AudioFault(UserError):
    """A recording that cannot be used.

    Attributes:
        fault: What is wrong, without the file's name.
    """

    def __init__(self, fault: str, file: str | None = None) -> None:
        super().__init__(fault if file is None else f"{file}: {fault}")
        self.fault = fault


def refusal(file: str, fault: str) -> UserError:
    """The error of a broken file where ``data.on_error`` is ``"error"``."""
    return UserError(
        f"cannot use {file}: it {fault}.\n"
        "Mend or remove the file, or leave out all broken files with data.on_error=skip."
    )


class Sound(NamedTuple):
    """A recording.

    Attributes:
        samples: (num_samples, channels) float64, full scale 1.
        rate: Sampling rate in Hz.
        remark: What is odd about the file and does not keep it from being used; empty where nothing is.
    """

    samples: NDArray[np.float64]
    rate: int
    remark: str = ""


class Frames(NamedTuple):
    """What a corpus without sound holds in a recording's place: frames x (T, D), float32."""

    x: NDArray[np.float32]


@dataclass(frozen=True)
class Utterance:
    """One recording.

    Attributes:
        file: Its name, unique in the corpus: a path relative to the corpus root, with forward slashes.
        speaker: Who speaks; equal names are the same speaker. Empty where nobody does.
        load: Reads the samples, or, of a corpus that holds no sound, the frames.
        labels: What else is known about it; the loader says which keys.
        source: What `load` depends on: the files it reads, as paths, and all that says what is made of them. Features
            of utterances without it are never kept on the disk (`corpora.loading.cache`).
    """

    file: str
    speaker: str
    load: Callable[[], Sound | Frames] = field(repr=False, compare=False)
    labels: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)
    source: tuple[object, ...] = field(default=(), repr=False, compare=False)

    def sound(self) -> Sound:
        """What `load` reads, where only sound will do.

        Raises:
            UserError: The corpus holds frames, no sound.
        """
        recording = self.load()
        if isinstance(recording, Frames):
            raise UserError(f"{self.file} holds frames, no sound: take a corpus of recordings.")
        return recording


@dataclass
class Corpus:
    """Utterances in splits.

    Attributes:
        name: Its name in `CORPORA`.
        root: The folder it was read from; empty for a built-in corpus.
        splits: Utterances by split, in an order that does not depend on the file system. Only the splits that
            were asked for.
        notes: What the user should know about a split, by split: said when the split is loaded.
        layout: How its folders were understood, in one line; said with the first split that is loaded.
    """

    name: str
    root: str
    splits: dict[str, list[Utterance]]
    notes: dict[str, list[str]] = field(default_factory=dict)
    layout: str = ""
