"""Frames of consecutive samples of a waveform, and the default settings for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpora.frontends.base import mono
from corpora.settings import DataSettings
from corpora.types import Frames, Sound
from dvae_pyro.errors import UserError

__all__ = ["SAMPLES", "Waveform", "open_waveform", "waveform_defaults"]

SAMPLES = 8000
"""Samples per training sequence: half a second at 16 kHz, as in the papers on Blizzard 2013."""

FRAME_WIDTH = 200
"""Default number of samples per frame, as in the same papers."""


class Waveform:
    """Non-overlapping frames of consecutive samples, not scaled; an incomplete last frame is omitted.

    Args:
        rate: Sampling rate in Hz.
        width: FW, samples per frame.
        trim_db: Silence this far below the loudest frame is cut at both ends; None disables trimming.
    """

    def __init__(self, rate: int, width: int, trim_db: float | None = None) -> None:
        self.rate = rate
        self.dim = width
        self.trim_db = trim_db

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """Mono samples at `rate`, full scale 1."""
        if isinstance(recording, Frames):
            raise UserError(
                "data.frontend=waveform needs sound, but the corpus holds frames: set data.frontend=frames."
            )
        return mono(recording, self.rate, self.trim_db, self.dim)

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Frames (T, FW) of mono samples, T = len(waveform) // FW."""
        end = len(waveform) // self.dim * self.dim
        return waveform[:end].reshape(-1, self.dim).astype(np.float32)

    def samples(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Samples (..., T * FW) of frames (..., T, FW)."""
        return features.reshape(*features.shape[:-2], -1).astype(np.float64)


def open_waveform(settings: DataSettings, bins: int) -> Waveform:
    """The front end that the settings describe, for a model with `bins` values per frame."""
    width = bins if settings.frame_width is None else settings.frame_width
    if width != bins:
        raise UserError(
            f"data.frame_width: got {width} samples, but model.bins is {bins}: the values of a frame are its samples.\n"
            f"Omit model.bins, or set data.frame_width={bins}."
        )
    return Waveform(settings.rate, width, settings.trim_db)


def waveform_defaults(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Default settings for ``data.frontend=waveform``, which override those of the model; empty for other front ends.

    Args:
        settings: all settings that are set explicitly, by dotted key.
    """
    if settings.get("data.frontend") != "waveform":
        return {}
    width = settings.get("data.frame_width")
    width = FRAME_WIDTH if width is None else width
    return {
        "data.frame_width": width,
        "data.sequence_frames": max(1, SAMPLES // max(1, width)) if isinstance(width, int) else None,
        "data.trim_db": None,
        "model.bins": width,
        "model.input": "raw",
        "model.likelihood": "gaussian",
        "model.normalise": "global",
        "model.variance_floor": 1e-6,  # density is unbounded in digital silence; the papers' smallest deviation is 1e-3
        "model.scale_bounds": [1e-3, 5.0],  # for mixtures, as in MS-STCN's public code
    }
