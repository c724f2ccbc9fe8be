"""Sounds that are written while they are computed, and kept in memory if metrics or pictures need them."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from dvae_pyro.files import disk_errors

__all__ = ["SoundOut"]


class SoundOut:
    """A 16-bit WAV file of unknown length, written under a temporary name and renamed when complete.

    Args:
        path: the file; None writes none.
        rate: sampling rate in Hz.
        keep: whether the samples are kept in memory too, for `samples`.
    """

    def __init__(self, path: Path | None, rate: int, *, keep: bool) -> None:
        self.path = path
        self.rate = rate
        self.kept: list[NDArray[np.float64]] | None = [] if keep else None
        self.peak = 0.0
        self.stream: Any = None

    def __call__(self, samples: NDArray[np.float64]) -> None:
        """Append samples."""
        self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
        if self.kept is not None:
            self.kept.append(samples)
        if self.path is None:
            return
        with disk_errors(self.path):
            if self.stream is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.stream = soundfile.SoundFile(
                    self._beside, "w", samplerate=self.rate, channels=1, format="WAV", subtype="PCM_16"
                )
            self.stream.write(np.clip(samples, -1.0, 1.0 - 2.0**-15))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.stream is not None and self.path is not None:
            self.stream.close()
            if kind is None:
                os.replace(self._beside, self.path)
            else:
                self._beside.unlink(missing_ok=True)
            self.stream = None

    @property
    def samples(self) -> NDArray[np.float64]:
        """All samples; empty if they are not kept."""
        return np.concatenate(self.kept) if self.kept else np.zeros(0)

    @property
    def _beside(self) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + ".tmp")
