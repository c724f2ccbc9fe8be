"""Frames of a waveform: consecutive samples, and the settings that go with them."""

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
"""Samples of a training sequence: half a second at 16 kHz, as in the papers on Blizzard 2013."""

FRAME_WIDTH = 200
"""Samples of a frame where nothing is said: those of the same papers."""


class Waveform:
    """Frames of consecutive samples, neither scaled nor overlapping; less than a frame at the end is left out.

    Args:
        rate: Sampling rate in Hz.
        width: FW, samples per frame.
        trim_db: Silence this far below the loudest frame is cut at both ends; None keeps all.
    """

    def __init__(self, rate: int, width: int, trim_db: float | None = None) -> None:
        self.rate = rate
        self.dim = width
        self.trim_db = trim_db

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """Mono samples at `rate`, full scale 1."""
        if isinstance(recording, Frames):
            raise UserError(
                "data.frontend=waveform works on sound, and the corpus holds frames: set data.frontend=frames."
            )
        return mono(recording, self.rate, self.trim_db, self.dim)

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Frames (T, FW) of mono samples, T = len(waveform) // FW."""
        whole = len(waveform) // self.dim * self.dim
        return waveform[:whole].reshape(-1, self.dim).astype(np.float32)

    def samples(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The samples (..., T * FW) that frames (..., T, FW) are of."""
        return features.reshape(*features.shape[:-2], -1).astype(np.float64)


def open_waveform(settings: DataSettings, bins: int) -> Waveform:
    """The front end that the settings ask for, for a model with `bins` values per frame."""
    width = bins if settings.frame_width is None else settings.frame_width
    if width != bins:
        raise UserError(
            f"data.frame_width: got {width} samples, but model.bins is {bins}: the values of a frame are its samples.\n"
            f"Leave model.bins out, or set data.frame_width={bins}."
        )
    return Waveform(settings.rate, width, settings.trim_db)


def waveform_defaults(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``data.frontend=waveform`` implies over the settings of a model: what its frames are, and what suits them.

    Args:
        said: all settings that are said anywhere, by dotted key; empty is returned if they have another front end.
    """
    if said.get("data.frontend") != "waveform":
        return {}
    width = said.get("data.frame_width")
    width = FRAME_WIDTH if width is None else width
    return {
        "data.frame_width": width,
        "data.sequence_frames": max(1, SAMPLES // max(1, width)) if isinstance(width, int) else None,
        "data.trim_db": None,
        "model.bins": width,
        "model.input": "raw",
        "model.likelihood": "gaussian",
        "model.normalise": "global",
        "model.variance_floor": 1e-6,  # digital silence is no density to aim at; the papers' least deviation is 1e-3
        "model.scale_bounds": [1e-3, 5.0],  # of mixtures, those of MS-STCN's public code
    }
