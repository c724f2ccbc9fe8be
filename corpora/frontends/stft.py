"""The short-time Fourier transform and its inverse, and the front end of power spectra.

`windowed_spectra` and `overlap_add` are the transform of every front end, of streamed batches and of the Griffin-Lim
algorithm, on any device.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import fold

from corpora.frontends.base import normalise
from corpora.settings import DataSettings
from corpora.types import Frames, Sound
from dvae_pyro.errors import UserError

__all__ = ["Stft", "open_stft", "overlap_add", "windowed_spectra"]


def windowed_spectra(samples: Tensor, taper: Tensor, hop: int) -> Tensor:
    r"""Spectra (..., T, n/2 + 1) of the windows that fit into samples (..., num_samples), without padding.

    .. math:: X_{tf} = \sum_{k=0}^{n-1} w_k\, s_{t h + k}\, e^{-2 \pi i f k / n}, \quad
        T = 1 + \lfloor (\mathrm{num\_samples} - n) / h \rfloor

    Args:
        samples: The samples s, real.
        taper: The window w, n values of the same dtype.
        hop: h, samples from one frame to the next.
    """
    spectra: Tensor = torch.fft.rfft(samples.unfold(-1, len(taper), hop) * taper)
    return spectra


def overlap_add(spectra: Tensor, taper: Tensor, hop: int) -> Tensor:
    r"""Samples (..., (T - 1) hop + n) of spectra (..., T, n/2 + 1): the least-squares inverse of `windowed_spectra`.

    Frames are windowed again and added, and every sample is divided by the sum of the squared windows that cover it:

    .. math:: s_j = \frac{\sum_t w_{j - t h}\, x_{t, j - t h}}{\sum_t w_{j - t h}^2}

    (Griffin & Lim, "Signal estimation from modified short-time Fourier transform", 1984, Eq. 6.) Samples that no window
    covers are 0.

    Args:
        spectra: The spectra X, whose inverse transforms are the frames x_t.
        taper: The window w, n values.
        hop: h, samples from one frame to the next.
    """
    frames = torch.fft.irfft(spectra, n=len(taper)) * taper
    *leading, count, width = frames.shape
    size, stride = (count - 1) * hop + width, (1, hop)
    columns = frames.reshape(-1, count, width).mT
    total = fold(columns, (1, size), (1, width), stride=stride).reshape(*leading, size)
    squares = taper.square()[:, None].expand(width, count)
    weight = fold(squares, (1, size), (1, width), stride=stride).reshape(size)
    return torch.where(weight > 0.0, total / weight, 0.0)


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
        spectra = windowed_spectra(torch.from_numpy(padded), torch.from_numpy(self.taper), self.hop)
        transform: NDArray[np.complex128] = spectra.numpy()
        return transform

    def features(self, waveform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Power spectra (T, F) of mono samples."""
        spectrum = self.spectrum(waveform)
        return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)

    def power(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Power spectra of features, which are the features themselves."""
        return features.astype(np.float64)

    def waveform(self, spectrum: NDArray[np.complex128], length: int | None = None) -> NDArray[np.float64]:
        """Samples of a transform (T, F) by weighted overlap-add.

        This is the exact inverse of `spectrum`; for a modified transform it is the signal whose transform is nearest in
        least squares.

        Args:
            spectrum: The transform.
            length: Number of samples of the original signal; by default (T - 1) * hop. Samples that no window covers
                are 0.
        """
        spectra = torch.from_numpy(np.asarray(spectrum, dtype=np.complex128))
        padded: NDArray[np.float64] = overlap_add(spectra, torch.from_numpy(self.taper), self.hop).numpy()
        samples = (len(spectrum) - 1) * self.hop if length is None else length
        inside = padded[self.window // 2 :][:samples]
        return np.pad(inside, (0, samples - len(inside)))


def open_stft(settings: DataSettings, bins: int) -> Stft:
    window = 2 * (bins - 1) if settings.window is None else settings.window
    if window // 2 + 1 != bins:
        raise UserError(
            f"data.window: got {window} samples, that is {window // 2 + 1} bins, but model.bins is {bins}.\n"
            f"Set data.window={2 * (bins - 1)} (or null), or model.bins={window // 2 + 1}."
        )
    hop = round(0.016 * settings.rate) if settings.hop is None else settings.hop
    return Stft(settings.rate, window, hop, settings.trim_db)
