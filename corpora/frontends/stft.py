"""Power spectra of a short-time Fourier transform, and the inverse transform."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from corpora.frontends.base import normalise
from corpora.settings import DataSettings
from corpora.types import Frames, Sound
from dvae_pyro.errors import UserError

__all__ = ["Stft", "open_stft"]


class Stft:
    r"""Power spectra of a short-time Fourier transform, computed in float64.

    The window is :math:`w_k = \sin(\pi (k + 1/2) / n)`, the signal is padded by reflection with n/2 samples at both
    ends and not scaled, frame t starts at sample t * hop, and ``T = 1 + num_samples // hop``. The features are
    :math:`|X|^2`, cast to float32 only at the end: in quiet frames a transform in float32 has no correct digits.

    Args:
        rate: Sampling rate in Hz.
        window: n, samples per window and length of the transform; even.
        hop: Samples from one frame to the next.
        trim_db: Silence this far below the loudest frame is cut at both ends; None disables trimming.
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
            raise UserError("data.frontend=stft needs sound, but the corpus holds frames: set data.frontend=frames.")
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
        """Power spectra of features, which are the features themselves."""
        return features.astype(np.float64)

    def waveform(self, spectrum: NDArray[np.complex128], length: int | None = None) -> NDArray[np.float64]:
        """Samples by weighted overlap-add of a transform (T, F).

        Each sample is divided by the sum of the squared windows that cover it. This is the exact inverse of `spectrum`;
        for a modified transform it is the signal whose transform is nearest in least squares.

        Args:
            spectrum: the transform.
            length: number of samples of the original signal; by default (T - 1) * hop. Samples that no window covers
                are 0.
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


def open_stft(settings: DataSettings, bins: int) -> Stft:
    window = 2 * (bins - 1) if settings.window is None else settings.window
    if window // 2 + 1 != bins:
        raise UserError(
            f"data.window: got {window} samples, that is {window // 2 + 1} bins, but model.bins is {bins}.\n"
            f"Set data.window={2 * (bins - 1)} (or null), or model.bins={window // 2 + 1}."
        )
    hop = round(0.016 * settings.rate) if settings.hop is None else settings.hop
    return Stft(settings.rate, window, hop, settings.trim_db)
