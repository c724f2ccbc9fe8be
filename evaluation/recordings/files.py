"""The recordings at a path, and the clean recordings that correspond to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.audio.io import EXTENSIONS, mix_to_mono, read_audio, resample
from corpora.recipes.folder import find_audio
from corpora.types import AudioFault
from dvae_pyro.errors import UserError

__all__ = ["Recording", "find_recordings", "match_clean", "read_mono"]

Samples = NDArray[np.float64]


class Recording(NamedTuple):
    """A sound file.

    Attributes:
        path: its path.
        name: its path relative to the given folder, without ending: ``"p232/p232_001"``.
    """

    path: Path
    name: str


def find_recordings(path: Path, argument: str) -> list[Recording]:
    """The sound file at a path, or all sound files below a folder, sorted by name.

    Raises:
        UserError: The path does not exist or holds no sound files, or two files differ only in their endings.
    """
    if path.is_file():
        return [Recording(path, path.stem)]
    if not path.is_dir():
        raise UserError(f"{argument} {path}: no such file or folder; relative paths start at {Path.cwd()}.")
    found = [Recording(path / file, Path(file).with_suffix("").as_posix()) for file in find_audio(path, path)]
    if not found:
        endings = ", ".join(ending.lstrip(".") for ending in EXTENSIONS)
        raise UserError(f"{argument} {path}: no sound files below it; expected files ending in {endings}.")
    names = [recording.name for recording in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"{argument} {path}: two files named {twice[0]} differ only in their endings. Remove one of them."
        )
    return found


def match_clean(recordings: Sequence[Recording], clean: Path, argument: str = "--clean") -> list[Recording]:
    """The clean recording of each recording, by its relative path, else by its file name.

    Raises:
        UserError: A recording has no clean recording, or several.
    """
    if clean.is_file() and len(recordings) == 1:
        return [Recording(clean, clean.stem)]
    found = find_recordings(clean, argument)
    by_name = {recording.name: recording for recording in found}
    by_stem: dict[str, list[Recording]] = {}
    for recording in found:
        by_stem.setdefault(Path(recording.name).name, []).append(recording)
    matched = []
    for recording in recordings:
        candidates = by_stem.get(Path(recording.name).name, [])
        if recording.name in by_name:
            candidates = [by_name[recording.name]]
        if len(candidates) != 1:
            what = "none" if not candidates else ", ".join(c.name for c in candidates)
            raise UserError(
                f"{argument} {clean}: expected one clean recording with the name of {recording.name}, found {what}."
            )
        matched.append(candidates[0])
    return matched


def read_mono(recording: Recording, rate: int | None = None, samples: int | None = None) -> Samples:
    """A whole recording, mixed to mono.

    Args:
        recording: the recording.
        rate: sampling rate in Hz to resample to; None keeps its own.
        samples: expected number of samples after resampling; None accepts any.

    Raises:
        AudioFault: The file is broken.
        UserError: It has another number of samples.
    """
    sound = read_audio(recording.path)
    mono = mix_to_mono(sound.samples)
    if rate is not None and sound.rate != rate:
        mono = resample(mono, sound.rate, rate)
    if samples is not None and len(mono) != samples:
        if abs(len(mono) - samples) > 1 or sound.rate == rate:
            raise UserError(
                f"{recording.path} has {len(mono)} samples at {rate or sound.rate} Hz, expected {samples} as in the "
                "corresponding recording: both must start and end at the same time."
            )
        mono = np.append(mono, mono[-1:])[:samples]
    if not len(mono):
        raise AudioFault("holds no samples", str(recording.path))
    return mono
