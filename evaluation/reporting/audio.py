"""Sound files of evaluations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from dvae_pyro.files import write_atomically

__all__ = ["peak", "sound_bytes", "write_sound"]


def write_sound(path: Path, samples: NDArray[np.float64], rate: int) -> None:
    """Write samples, full scale 1, with 16 bits, as ``.wav`` or ``.flac``."""
    write_atomically(path, sound_bytes(samples, rate, path.suffix[1:]))


def sound_bytes(samples: NDArray[np.float64], rate: int, kind: str = "wav") -> bytes:
    """A 16-bit sound file of samples, full scale 1, in the format "wav" or "flac"."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind.upper(), subtype="PCM_16")
    return stream.getvalue()


def peak(*sounds: Sequence[float] | NDArray[np.float64]) -> float:
    """The largest absolute value of sounds, at least 1: dividing them by it prevents clipping.

    Example:
        >>> peak([0.5, -2.0], [1.0]), peak([0.25])
        (2.0, 1.0)
    """
    return max(1.0, *(float(np.abs(samples).max(initial=0.0)) for samples in sounds))
