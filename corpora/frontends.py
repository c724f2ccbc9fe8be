"""Front ends: from a recording to the frames a model sees, and back where that is possible.

Each front end is one class in one registry, `FRONT_ENDS`. A further one is a further class with the members of
`FrontEnd` and one line in the registry. Those of speech recognition are in `corpora.features`, frames of samples in
`corpora.waveforms`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from corpora.audio import AudioFault, Frames, Sound, mix_to_mono, resample
from corpora.settings import DataSettings
from inference.errors import UserError, nearest

__all__ = ["FRONT_ENDS", "FrontEnd", "PassFrames", "Stft", "mono", "normalise", "open_frontend", "trim_bounds"]

TRIM_WINDOW, TRIM_HOP = 2048, 512


class FrontEnd(Protocol):
    """What turns a recording into features.

    Attributes:
        dim: D, values per frame.
        rate: Sampling rate it works at, in Hz; 0 where there is no sound.
    """

    @property
    def dim(self) -> int: ...

    @property
    def rate(self) -> int: ...

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """Mono samples at `rate`, trimmed and normalised; an `AudioFault` where that cannot be."""
        ...

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Features (T, D) of prepared samples."""
        ...


def trim_bounds(samples: NDArray[np.float64], trim_db: float) -> tuple[int, int]:
    """First and last (exclusive) sample to keep of a mono signal, as ``librosa.effects.trim`` (from 0.10).

    The power of frames of 2048 samples, every 512 samples, centred, the signal padded with zeros, is compared
    with the largest one; kept is from the first to the last frame less than `trim_db` below it.

    Example:
        >>> trim_bounds(np.concatenate([np.zeros(8192), np.ones(4096), np.zeros(8192)]), 30.0)
        (7680, 13312)
    """
    frames = 1 + len(samples) // TRIM_HOP
    blocks = TRIM_WINDOW // TRIM_HOP
    padded = np.zeros((frames - 1 + blocks) * TRIM_HOP)
    tail = samples[: len(padded) - TRIM_WINDOW // 2]
    padded[TRIM_WINDOW // 2 : TRIM_WINDOW // 2 + len(tail)] = tail
    energy = (padded.reshape(-1, TRIM_HOP) ** 2).sum(axis=1)
    power = sliding_window_view(energy, blocks).sum(axis=1) / TRIM_WINDOW
    level = 10 * np.log10(np.maximum(power, 1e-10))
    loud = np.flatnonzero(level - level.max() > -trim_db)
    return int(loud[0]) * TRIM_HOP, min(len(samples), (int(loud[-1]) + 1) * TRIM_HOP)


def mono(sound: Sound, rate: int, trim_db: float | None, shortest: int) -> NDArray[np.float64]:
    """Mix to mono, resample and trim.

    Args:
        sound: The recording.
        rate: Wanted sampling rate in Hz.
        trim_db: Threshold of `trim_bounds`; None keeps all.
        shortest: Samples that must be left.

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


class Stft:
    r"""Power spectra of a short-time Fourier transform, computed in float64.

    With the sine window :math:`w_k = \sin(\pi (k + 1/2) / n)`, the signal padded by reflection with n/2
    samples at both ends and no scaling, frame t starts at sample t * hop and ``T = 1 + num_samples // hop``.
    The features are :math:`|X|^2`, cast to float32 only at the end: in quiet frames a float32 transform has
    no correct digits left.

    Args:
        rate: Sampling rate in Hz.
        window: n, samples per window and length of the transform; even.
        hop: Samples from one frame to the next.
        trim_db: Silence this far below the loudest frame is cut at both ends; None keeps all.
    """

    def __init__(self, rate: int, window: int, hop: int, trim_db: float | None = 30.0) -> None:
        if rate < 1:
            raise UserError(f"data.rate: got {rate}, expected a sampling rate in Hz such as 16000.")
        if window < 2 or window % 2:
            raise UserError(f"data.window: got {window}, expected an even number of samples such as 512.")
        if not 1 <= hop <= window:
            raise UserError(f"data.hop: got {hop}, expected 1 to {window} samples (the window) or null.")
        if trim_db is not None and not trim_db > 0:
            raise UserError(f"data.trim_db: got {trim_db}, expected decibels above 0, or null for no trimming.")
        self.rate = rate
        self.window = window
        self.hop = hop
        self.trim_db = trim_db
        self.dim = window // 2 + 1
        self.taper = np.sin(np.pi * (np.arange(window) + 0.5) / window)

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """Mono samples at `rate`, trimmed, with a largest absolute value of 1."""
        if isinstance(recording, Frames):
            raise UserError("data.frontend=stft works on sound, and the corpus holds frames: set data.frontend=frames.")
        return normalise(recording, self.rate, self.trim_db, self.window)

    def spectrum(self, waveform: NDArray[np.float64]) -> NDArray[np.complex128]:
        """The transform (T, F) of mono samples."""
        padded = np.pad(np.asarray(waveform, dtype=np.float64), self.window // 2, mode="reflect")
        frames = sliding_window_view(padded, self.window)[:: self.hop]
        return np.fft.rfft(frames * self.taper, axis=-1)

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Power spectra (T, F) of mono samples."""
        spectrum = self.spectrum(waveform)
        return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)

    def power(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The power spectra that features are of: these are the features."""
        return features.astype(np.float64)

    def waveform(self, spectrum: NDArray[np.complex128], length: int | None = None) -> NDArray[np.float64]:
        """Samples by weighted overlap-add of a transform (T, F).

        Each sample is divided by the sum of the squared windows that cover it, which makes this the exact
        inverse of `spectrum` and, for a changed transform, the signal whose own transform is nearest to it in
        least squares.

        Args:
            spectrum: the transform.
            length: how many samples the signal had that the transform is of, so that none is lost; by default
                (T - 1) * hop. Those that no window covers are 0.
        """
        frames = np.fft.irfft(spectrum, n=self.window, axis=-1) * self.taper
        total = np.zeros((len(frames) - 1) * self.hop + self.window)
        weight = np.zeros_like(total)
        for index, frame in enumerate(frames):
            span = slice(index * self.hop, index * self.hop + self.window)
            total[span] += frame
            weight[span] += self.taper**2
        half = self.window // 2
        samples = (len(frames) - 1) * self.hop if length is None else length
        end = min(half + samples, len(total))
        signal, covered = np.zeros(samples), weight[half:end]
        np.divide(total[half:end], covered, out=signal[: end - half], where=covered > 0.0)
        return signal


class PassFrames:
    """The front end of corpora that hold frames: it passes them on as they are.

    Args:
        dim: D, values per frame.
    """

    rate = 0

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def prepare(self, recording: Sound | Frames) -> NDArray[np.float64]:
        """The frames (T, D)."""
        if isinstance(recording, Sound):
            raise UserError("data.frontend=frames works on frames, and the corpus holds sound: set data.frontend=stft.")
        if recording.x.ndim != 2 or recording.x.shape[1] != self.dim:
            raise UserError(
                f"the corpus holds frames of shape {recording.x.shape}, expected (frames, {self.dim}): "
                f"set model.bins={recording.x.shape[-1]}."
            )
        if len(recording.x) == 0:
            raise AudioFault("holds no frames")
        return recording.x.astype(np.float64)

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """The frames again."""
        return waveform.astype(np.float32)


def _open_stft(settings: DataSettings, bins: int) -> Stft:
    window = 2 * (bins - 1) if settings.window is None else settings.window
    if window // 2 + 1 != bins:
        raise UserError(
            f"data.window: got {window} samples, that is {window // 2 + 1} bins, but model.bins is {bins}.\n"
            f"Set data.window={2 * (bins - 1)} (or null), or model.bins={window // 2 + 1}."
        )
    hop = round(0.016 * settings.rate) if settings.hop is None else settings.hop
    return Stft(settings.rate, window, hop, settings.trim_db)


def _open_waveform(settings: DataSettings, bins: int) -> FrontEnd:
    from corpora.waveforms import open_waveform

    return open_waveform(settings, bins)


def _open_fbank(settings: DataSettings, bins: int) -> FrontEnd:
    from corpora.features import open_fbank

    return open_fbank(settings, bins)


def _open_log_magnitude(settings: DataSettings, bins: int) -> FrontEnd:
    from corpora.features import open_log_magnitude

    return open_log_magnitude(settings, bins)


#: Front ends by the name that ``data.frontend`` gives.
FRONT_ENDS: dict[str, Callable[[DataSettings, int], FrontEnd]] = {
    "stft": _open_stft,
    "fbank": _open_fbank,
    "log_magnitude": _open_log_magnitude,
    "frames": lambda settings, bins: PassFrames(bins),
    "waveform": _open_waveform,
}


def open_frontend(settings: DataSettings, bins: int) -> FrontEnd:
    """The front end that the settings name, for a model with `bins` values per frame."""
    if settings.frontend not in FRONT_ENDS:
        raise UserError(
            f"unknown front end data.frontend={settings.frontend!r}, expected one of "
            f"{', '.join(FRONT_ENDS)}.{nearest(settings.frontend, FRONT_ENDS)}"
        )
    return FRONT_ENDS[settings.frontend](settings, bins)
