r"""Front ends of speech recognition: log-mel energies (FBank) and log-magnitude spectra.

Both are logarithms of the transform of the pre-emphasised waveform (`corpora.frontends.stft.Stft` with a Hamming
window). They can be inverted: `power` inverts the logarithm, `waveform` the transform and the pre-emphasis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corpora.frontends.stft import Stft
from corpora.settings import DataSettings
from dvae_pyro.errors import UserError

__all__ = ["LogMagnitude", "LogMel", "mel_filters", "open_fbank", "open_log_magnitude"]

PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
"""Lower edge of Kaldi's lowest mel band."""
LEAST_ENERGY = 1e-10
"""Floor of the energy of a mel band; 16-bit quantisation noise is about 1e-8."""
LEAST_LOG_MAGNITUDE = -20.0
MEL_UPDATES = 10

Samples = NDArray[np.float64]


class _Emphasised(Stft):
    r"""A short-time Fourier transform of y_t = x_t - 0.97 x_{t-1} with a Hamming window centred in the frame.

    Args:
        rate, hop, trim_db: as of `Stft`.
        window: samples of the Hamming window; even.
        transform: length of the transform, at least `window`; the window is padded with zeros to it.
    """

    def __init__(self, rate: int, window: int, transform: int, hop: int, trim_db: float | None) -> None:
        super().__init__(rate, transform, hop, trim_db)
        hamming = 0.54 - 0.46 * np.cos(2.0 * np.pi * np.arange(window) / (window - 1))
        self.taper = np.pad(hamming, (transform - window) // 2)

    def spectrum(self, waveform: Samples) -> NDArray[np.complex128]:
        """The transform (T, transform / 2 + 1) of mono samples."""
        x = np.asarray(waveform, dtype=np.float64)
        return super().spectrum(np.append(x[:1], x[1:] - PRE_EMPHASIS * x[:-1]))

    def waveform(self, spectrum: NDArray[np.complex128], length: int | None = None) -> Samples:
        """Samples of a transform: `Stft.waveform`, followed by the inverse of the pre-emphasis."""
        from scipy.signal import lfilter

        samples: Samples = lfilter([1.0], [1.0, -PRE_EMPHASIS], super().waveform(spectrum, length))
        return samples


class LogMagnitude(_Emphasised):
    r"""Log-magnitude spectra, :math:`\max(\log |X|, -20)`, without the bin at 0 Hz: ``window / 2`` values per frame.

    The reconstructions of Hsu et al. (2017) have 200 such values, for a window of 400 samples (25 ms) every 10 ms. The
    transform has 201 bins, and the paper does not say which one it omits; here it is that of 0 Hz.
    """

    def __init__(self, rate: int, window: int, hop: int, trim_db: float | None = None) -> None:
        super().__init__(rate, window, window, hop, trim_db)
        self.dim = window // 2

    def features(self, waveform: Samples) -> NDArray[np.float32]:
        """Log-magnitudes (T, window / 2) of mono samples."""
        magnitude = np.abs(self.spectrum(waveform)[:, 1:])
        return np.log(np.maximum(magnitude, np.exp(LEAST_LOG_MAGNITUDE))).astype(np.float32)

    def power(self, features: NDArray[np.floating]) -> Samples:
        """Power spectra (T, window / 2 + 1) of features (T, window / 2); 0 at 0 Hz."""
        return np.pad(np.exp(2.0 * features.astype(np.float64)), ((0, 0), (1, 0)))


class LogMel(_Emphasised):
    r"""FBank features as in Kaldi: :math:`\log(\max(W |X|^2, 10^{-10}))`, W from `mel_filters`.

    As in Kaldi with a Hamming window: pre-emphasis, zero-padding to the next power of two, power spectrum, triangular
    mel filters from 20 Hz to half the rate, natural logarithm. Differences from Kaldi: samples are scaled to a largest
    absolute value of 1 (Kaldi: 32768, which adds a constant), frames are centred at multiples of the hop with the
    signal reflected at its ends, the mean of a frame is not subtracted (the lowest band excludes 0 Hz), and there is no
    dither.

    Args:
        rate, hop, trim_db: as of `Stft`.
        window: samples of the Hamming window; even.
        bands: mel bands, D.
    """

    def __init__(self, rate: int, window: int, hop: int, bands: int, trim_db: float | None = None) -> None:
        super().__init__(rate, window, 1 << (window - 1).bit_length(), hop, trim_db)
        self.filters = mel_filters(bands, rate, self.window)
        self.dim = bands
        empty = np.flatnonzero(self.filters.sum(axis=1) == 0.0)
        if len(empty):
            raise UserError(
                f"model.bins: {bands} mel bands are too narrow for a transform of {self.window} samples at {rate} Hz: "
                f"{len(empty)} of them contain no frequency bin. Reduce model.bins, or increase data.window."
            )

    def features(self, waveform: Samples) -> NDArray[np.float32]:
        """Log-mel energies (T, bands) of mono samples."""
        spectrum = self.spectrum(waveform)
        energies = (spectrum.real**2 + spectrum.imag**2) @ self.filters.T
        return np.log(np.maximum(energies, LEAST_ENERGY)).astype(np.float32)

    def power(self, features: NDArray[np.floating]) -> Samples:
        r"""Power spectra (T, F) with approximately these mel energies E; the filters do not determine them uniquely.

        Starting from the energies spread over their bands, ten multiplicative updates reduce the generalised
        Kullback-Leibler divergence of E and W P (Lee & Seung, "Algorithms for non-negative matrix factorization"),

        .. math:: P \leftarrow P \circ \frac{W^\top (E / W P)}{W^\top 1}

        with a floor of 1e-10. On speech the energies are recovered to 0.1 dB. `librosa.util.nnls` (least squares) is
        less accurate, leaves gaps between the bands, and is a hundred times slower.
        """
        energies, filters = np.exp(features.astype(np.float64)), self.filters
        coverage = filters.sum(axis=0)
        power: Samples = energies / filters.sum(axis=1) @ filters / np.maximum(coverage, LEAST_ENERGY)
        for _ in range(MEL_UPDATES):
            ratio = energies / np.maximum(power @ filters.T, LEAST_ENERGY)
            power = power * (ratio @ filters / np.maximum(coverage, LEAST_ENERGY))
        power = np.maximum(power, LEAST_ENERGY)
        return power


def mel_filters(bands: int, rate: int, transform: int, lowest: float = LOWEST_HZ) -> Samples:
    r"""Filters (bands, transform / 2 + 1) that are triangular on the mel scale, as in Kaldi.

    .. math:: m(f) = 1127 \ln(1 + f / 700), \quad W_{bk} = \max\left(0, 1 - \frac{|m(f_k) - c_b|}{\delta}\right),
        \quad c_b = m(\mathrm{lowest}) + (b + 1) \delta

    with delta such that the last triangle ends at rate / 2.
    """

    def mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = 1127.0 * np.log1p(hertz / 700.0)
        return scaled

    ends = mel(np.array([lowest, rate / 2.0]))
    points = np.linspace(ends[0], ends[1], bands + 2)
    frequencies = mel(np.arange(transform // 2 + 1) * rate / transform)
    distance = np.abs(frequencies - points[1:-1, None]) / (points[1] - points[0])
    filters: Samples = np.maximum(0.0, 1.0 - distance)
    return filters


def open_fbank(settings: DataSettings, bins: int) -> LogMel:
    """The front end ``fbank``: `bins` mel bands, window null is 25 ms, hop null 10 ms."""
    window = 2 * round(0.0125 * settings.rate) if settings.window is None else settings.window
    _check_window(window)
    return LogMel(settings.rate, window, _hop(settings), bins, settings.trim_db)


def open_log_magnitude(settings: DataSettings, bins: int) -> LogMagnitude:
    """The front end ``log_magnitude``: window null is 2 bins, hop null 10 ms."""
    window = 2 * bins if settings.window is None else settings.window
    _check_window(window)
    if window != 2 * bins:
        raise UserError(
            f"data.window: got {window} samples, that is {window // 2} bins without 0 Hz, but model.bins is {bins}.\n"
            f"Set data.window={2 * bins} (or null), or model.bins={window // 2}."
        )
    return LogMagnitude(settings.rate, window, _hop(settings), settings.trim_db)


def _check_window(window: int) -> None:
    if window < 4 or window % 2:
        raise UserError(f"data.window: got {window}, expected an even number of samples such as 400.")


def _hop(settings: DataSettings) -> int:
    return round(0.01 * settings.rate) if settings.hop is None else settings.hop
