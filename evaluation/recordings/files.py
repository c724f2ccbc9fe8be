"""Which recordings a path stands for, and the clean ones that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.audio.io import EXTENSIONS, mix_to_mono, read_audio, resample
from corpora.types import AudioFault
from dvae_pyro.errors import UserError

__all__ = ["Recording", "find_recordings", "match_clean", "read_mono"]

Samples = NDArray[np.float64]


class Recording(NamedTuple):
    """A sound file.

    Attributes:
        path: where it is.
        name: its path below the folder asked for, without ending: ``"p232/p232_001"``.
    """

    path: Path
    name: str


def find_recordings(path: Path, argument: str) -> list[Recording]:
    """The sound file at a path, or all below a folder, in the order of their names.

    Raises:
        UserError: for a path that is not there, or holds none.
    """
    if path.is_file():
        return [Recording(path, path.stem)]
    if not path.is_dir():
        raise UserError(f"{argument} {path}: no such file or folder; relative paths start at {Path.cwd()}.")
    from corpora.recipes.folder import find_audio

    found = [Recording(path / file, Path(file).with_suffix("").as_posix()) for file in find_audio(path, path)]
    if not found:
        endings = ", ".join(ending.lstrip(".") for ending in EXTENSIONS)
        raise UserError(f"{argument} {path}: no sound files below it; expected files ending in {endings}.")
    names = [recording.name for recording in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{argument} {path}: {twice[0]} is there with two endings. Remove one of them.")
    return found


def match_clean(recordings: Sequence[Recording], clean: Path, argument: str = "--clean") -> list[Recording]:
    """The clean recording of each, by its name below the folder, else by the name of the file alone.

    Raises:
        UserError: where there is none, or several.
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
            what = "none of that name" if not candidates else "several: " + ", ".join(c.name for c in candidates)
            raise UserError(
                f"{argument} {clean}: the clean recording of {recording.name} is looked for by name, and there is "
                f"{what}."
            )
        matched.append(candidates[0])
    return matched


def read_mono(recording: Recording, rate: int | None = None, samples: int | None = None) -> Samples:
    """A whole recording, mixed to mono.

    Args:
        recording: which.
        rate: sampling rate that it is resampled to.
        samples: how many there must be then.

    Raises:
        UserError: for a broken file, or one of another length.
    """
    sound = read_audio(recording.path)
    mono = mix_to_mono(sound.samples)
    if rate is not None and sound.rate != rate:
        mono = resample(mono, sound.rate, rate)
    if samples is not None and len(mono) != samples:
        if abs(len(mono) - samples) > 1 or sound.rate == rate:
            raise UserError(
                f"{recording.path} has {len(mono)} samples at {rate or sound.rate} Hz, the recording that it belongs "
                f"to {samples}: they must start and end together."
            )
        mono = np.append(mono, mono[-1:])[:samples]
    if not len(mono):
        raise AudioFault("holds no samples", str(recording.path))
    return mono
