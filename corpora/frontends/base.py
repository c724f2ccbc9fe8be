"""Front ends: from a recording to frames, and back where that is possible.

Each front end is a class with the members of `FrontEnd` and one line in the registry
(`corpora.frontends.registry.FRONT_ENDS`). Features of speech recognition are in `corpora.frontends.fbank`, frames of
samples in `corpora.frontends.waveform`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from corpora.audio.io import mix_to_mono, resample
from corpora.settings import DataSettings
from corpora.types import AudioFault, Frames, Sound
from dvae_pyro.errors import UserError

__all__ = ["FrontEnd", "mono", "normalise", "trim_bounds"]

TRIM_WINDOW, TRIM_HOP = 2048, 512


class FrontEnd(Protocol):
    """The interface of front ends, which compute features of recordings.

    Attributes:
        dim: D, values per frame.
        rate: Sampling rate in Hz; 0 without sound.
    """

    @property
    def dim(self) -> int: ...

    @property
    def rate(self) -> int: ...

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """Mono samples at `rate`, trimmed and normalised; raises `AudioFault` if that is impossible."""
        ...

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Features (T, D) of prepared samples."""
        ...


def trim_bounds(samples: NDArray[np.float64], trim_db: float) -> tuple[int, int]:
    """First and last (exclusive) sample to keep of a mono signal, as in ``librosa.effects.trim`` (since 0.10).

    The power of centred frames of 2048 samples, every 512 samples, of the zero-padded signal is compared with the
    largest one; the signal is kept from the first to the last frame less than `trim_db` below it.

    Example:
        >>> trim_bounds(np.concatenate([np.zeros(8192), np.ones(4096), np.zeros(8192)]), 30.0)
        (7680, 13312)
    """
    signal = torch.from_numpy(samples)
    size = len(samples) // TRIM_HOP * TRIM_HOP + TRIM_WINDOW  # of the frames at all multiples of the hop
    padded = pad(signal, (TRIM_WINDOW // 2, TRIM_WINDOW // 2))[:size]
    energy = padded.reshape(-1, TRIM_HOP).square().sum(1)
    power = energy.unfold(0, TRIM_WINDOW // TRIM_HOP, 1).mean(1) / TRIM_HOP
    level = 10.0 * power.clamp_min(1e-10).log10()
    loud = (level - level.max() > -trim_db).nonzero()
    return int(loud[0]) * TRIM_HOP, min(len(samples), (int(loud[-1]) + 1) * TRIM_HOP)


def mono(sound: Sound, rate: int, trim_db: float | None, shortest: int) -> NDArray[np.float64]:
    """Mix to mono, resample and trim.

    Args:
        sound: The recording.
        rate: Target sampling rate in Hz.
        trim_db: Threshold of `trim_bounds`; None disables trimming.
        shortest: Smallest number of samples after trimming.

    Raises:
        AudioFault: The recording is silent, holds NaN or infinite samples, or too few.
    """
    samples = resample(mix_to_mono(sound.samples), sound.rate, rate)
    if not np.isfinite(samples).all():
        raise AudioFault("holds NaN or infinite samples")
    if len(samples) and not samples.any():
        raise AudioFault("is silent: every sample is zero")
    if trim_db is not None and len(samples):
        start, end = trim_bounds(samples, trim_db)
        samples = samples[start:end]
    if len(samples) < shortest:
        raise AudioFault(
            f"is too short: {len(samples)} samples at {rate} Hz where one window needs {shortest}"
            + ("" if trim_db is None else f" (counted after trimming at {trim_db:g} dB)")
        )
    return samples


def normalise(sound: Sound, rate: int, trim_db: float | None, shortest: int) -> NDArray[np.float64]:
    """The samples of `mono`, scaled to a largest absolute value of 1."""
    samples = mono(sound, rate, trim_db, shortest)
    normalised: NDArray[np.float64] = samples / np.abs(samples).max()
    return normalised


class PassFrames:
    """The front end of corpora that hold frames: returns them unchanged.

    Args:
        dim: D, values per frame.
    """

    rate = 0

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """The frames (T, D)."""
        if isinstance(recording, Sound):
            raise UserError("data.frontend=frames needs frames, but the corpus holds sound: set data.frontend=stft.")
        if recording.x.ndim != 2 or recording.x.shape[1] != self.dim:
            raise UserError(
                f"the corpus holds frames of shape {recording.x.shape}, expected (frames, {self.dim}): "
                f"set model.bins={recording.x.shape[-1]}."
            )
        if len(recording.x) == 0:
            raise AudioFault("holds no frames")
        return recording.x.astype(np.float64)

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """The frames as float32."""
        return waveform.astype(np.float32)


def open_frames(settings: DataSettings, bins: int) -> PassFrames:
    """The front end ``frames`` for a model with `bins` values per frame."""
    return PassFrames(bins)
