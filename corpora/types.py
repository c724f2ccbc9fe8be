"""Types of corpora: recordings, utterances, splits."""

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
        fault: The fault, without the file's name.
    """

    def __init__(self, fault: str, file: str | None = None) -> None:
        super().__init__(fault if file is None else f"{file}: {fault}")
        self.fault = fault


def refusal(file: str, fault: str) -> UserError:
    """The error of a broken file where ``data.on_error`` is ``"error"``."""
    return UserError(
        f"cannot use {file}: it {fault}.\nRepair or remove the file, or omit all broken files with data.on_error=skip."
    )


class Sound(NamedTuple):
    """A recording.

    Attributes:
        samples: (num_samples, channels) float64, full scale 1.
        rate: Sampling rate in Hz.
        remark: An anomaly of the file that does not prevent its use; empty if there is none.
    """

    samples: NDArray[np.float64]
    rate: int
    remark: str = ""


class Frames(NamedTuple):
    """Frames x (T, D), float32, in place of a recording, in a corpus without sound."""

    x: NDArray[np.float32]


@dataclass(frozen=True)
class Utterance:
    """One recording.

    Attributes:
        file: Its name, unique in the corpus: a path relative to the corpus root, with forward slashes.
        speaker: Name of the speaker, empty if there is none; equal names are the same speaker.
        load: Reads the samples, or the frames of a corpus without sound.
        labels: Further labels; each loader documents its keys.
        source: Everything that `load` depends on: the paths of the files that it reads, and its parameters. Features of
            utterances without a source are never cached (`corpora.loading.cache`).
    """

    file: str
    speaker: str
    load: Callable[[], Sound | Frames] = field(repr=False, compare=False)
    labels: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)
    source: tuple[object, ...] = field(default=(), repr=False, compare=False)

    def sound(self) -> Sound:
        """The recording read by `load`, which must be sound.

        Raises:
            UserError: The corpus holds frames, no sound.
        """
        recording = self.load()
        if isinstance(recording, Frames):
            raise UserError(f"{self.file} holds frames, no sound: use a corpus of recordings.")
        return recording


@dataclass
class Corpus:
    """Utterances in splits.

    Attributes:
        name: Its name in `CORPORA`.
        root: The folder it was read from; empty for a built-in corpus.
        splits: Utterances by split, in an order that does not depend on the file system; only the requested splits.
        notes: Lines about a split for the user, by split; reported when the split is loaded.
        layout: One line on how the folders were interpreted; reported with the first split that is loaded.
    """

    name: str
    root: str
    splits: dict[str, list[Utterance]]
    notes: dict[str, list[str]] = field(default_factory=dict)
    layout: str = ""
