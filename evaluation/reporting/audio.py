"""Sound files of evaluations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from dvae_pyro.files import write_atomically

__all__ = ["peak", "wav_bytes", "write_wav"]


def write_wav(path: Path, samples: NDArray[np.float64], rate: int) -> None:
    """Write samples, full scale 1, as 16-bit WAV."""
    write_atomically(path, wav_bytes(samples, rate))


def wav_bytes(samples: NDArray[np.float64], rate: int) -> bytes:
    """A 16-bit WAV file of samples, full scale 1."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def peak(*sounds: Sequence[float] | NDArray[np.float64]) -> float:
    """The largest absolute value of sounds, at least 1: dividing them by it prevents clipping.

    Example:
        >>> peak([0.5, -2.0], [1.0]), peak([0.25])
        (2.0, 1.0)
    """
    return max(1.0, *(float(np.abs(samples).max(initial=0.0)) for samples in sounds))
