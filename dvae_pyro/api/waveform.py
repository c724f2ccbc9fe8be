"""Sounds as the Python API takes and returns them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.audio.io import read_audio
from corpora.types import Sound
from dvae_pyro.errors import UserError
from evaluation.reporting.audio import peak, sound_bytes, write_sound

__all__ = ["SoundLike", "Waveform", "as_sound"]


class Waveform(NamedTuple):
    """Samples (n,), full scale 1, and their rate in Hz; a notebook shows a player."""

    samples: NDArray[np.float64]
    rate: int

    def save(self, path: str | Path) -> None:
        """Write a 16-bit WAV file, scaled down where it would clip."""
        write_sound(Path(path), self.samples / peak(self.samples), self.rate)

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(sound_bytes(self.samples / peak(self.samples), self.rate)).decode()
        return f'<audio controls src="data:audio/wav;base64,{encoded}"></audio>'


SoundLike = str | Path | Waveform | NDArray[np.floating]
"""The path of a sound file, a waveform, or samples (n,)."""


def as_sound(sound: SoundLike, rate: int) -> Sound:
    """A sound file or samples as a recording; `rate` is that of an array."""
    if isinstance(sound, str | Path):
        return read_audio(sound)
    if isinstance(sound, Waveform):
        return Sound(np.asarray(sound.samples, dtype=np.float64)[:, None], sound.rate)
    samples = np.asarray(sound, dtype=np.float64)
    if samples.ndim != 1:
        raise UserError(f"samples of shape {samples.shape}: expected one channel, (n,).")
    return Sound(samples[:, None], rate)
