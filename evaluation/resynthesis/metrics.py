r"""Metrics of a resynthesised signal against its reference.

Notation: :math:`s` is the reference (trimmed, divided by its largest absolute value), :math:`e` the estimate and
:math:`\langle a, b \rangle = \sum_n a_n b_n`. Signals are not rescaled, clipped or quantised before they are compared.

The literature prints three different PESQ scores: wide band (``pesq_wb``), narrow band (``pesq_nb``), and in the tables
of the DVAE papers the narrow band of another package. Every figure names its variant.

An undefined figure is NaN: PESQ where it finds no speech, STOI where less than 384 ms of speech is left, SI-SDR, PESQ
and STOI where either signal is silent, all figures where the estimate is not finite. Reports count and name these
files.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.audio.io import resample

__all__ = [
    "METRICS",
    "Metric",
    "Scores",
    "estoi",
    "itakura_saito",
    "pesq",
    "pesq_rate",
    "rmse_plain",
    "rmse_scaled",
    "score",
    "si_sdr",
    "stoi",
]

Signal = NDArray[np.float64]


class Metric(NamedTuple):
    """How a figure is printed: ``value * scale`` with `decimals` decimals under the heading `label`.

    `better` is None where neither direction is better: a KL near zero may be a collapsed posterior. `definition` is
    what a tooltip says.
    """

    label: str
    decimals: int
    better: Literal["higher", "lower"] | None
    scale: float = 1.0
    definition: str = ""


METRICS: dict[str, Metric] = {
    "si_sdr": Metric(
        "SI-SDR dB",
        2,
        "higher",
        definition="Scale-invariant signal-to-distortion ratio of the waveform, in dB (Le Roux et al., 2019).",
    ),
    "rmse_scaled": Metric(
        "RMSE x1e-2",
        2,
        "lower",
        100.0,
        "Root mean squared error of the waveform after the best scale on the estimate, times 100: the RMSE of the DVAE "
        "papers. The loudest sample of the recording is 1.",
    ),
    "rmse_plain": Metric(
        "RMSE plain x1e-2", 2, "lower", 100.0, "Root mean squared error of the waveform, nothing rescaled, times 100."
    ),
    "pesq_wb": Metric(
        "PESQ wide",
        2,
        "higher",
        definition="Perceptual evaluation of speech quality, wide band (ITU-T P.862.2), at most 4.64. Not comparable "
        "with narrow band, nor with the package of the DVAE papers.",
    ),
    "pesq_nb": Metric(
        "PESQ narrow",
        2,
        "higher",
        definition="Perceptual evaluation of speech quality, narrow band (P.862 mapped by P.862.1), at most 4.55.",
    ),
    "stoi": Metric(
        "STOI", 3, "higher", definition="Short-time objective intelligibility, at most 1 (Taal et al., 2011)."
    ),
    "estoi": Metric(
        "ESTOI",
        3,
        "higher",
        definition="Extended short-time objective intelligibility, at most 1 (Jensen and Taal, 2016).",
    ),
    "is_per_frame": Metric(
        "IS/frame",
        1,
        "lower",
        definition="Itakura-Saito divergence of the recording's power spectrum from the model's variance, summed over "
        "bins, mean over frames. Comparable only between runs with one front end.",
    ),
    "kl_per_frame": Metric(
        "KL/frame",
        2,
        None,
        definition="KL divergence of the guide from the prior in nats per frame, summed over latents. Near zero, the "
        "latents are hardly used; neither direction is better.",
    ),
    "dnsmos": Metric(
        "DNSMOS",
        2,
        "higher",
        definition="Mean opinion score that a network predicts from the sound alone (DNSMOS P.835, overall), 1 to 5.",
    ),
    "dnsmos_reference": Metric("DNSMOS of the input", 2, None, definition="DNSMOS of the recording."),
}


class Scores(NamedTuple):
    """The figures of one pair of waveforms; see the functions of the same names."""

    si_sdr: float
    rmse_scaled: float
    rmse_plain: float
    pesq_wb: float
    pesq_nb: float
    stoi: float
    estoi: float


def si_sdr(reference: Signal, estimate: Signal) -> float:
    r"""Scale-invariant signal-to-distortion ratio in dB, without mean removal.

    .. math:: 10 \log_{10} \frac{\|a s\|^2}{\|e - a s\|^2},
        \qquad a = \frac{\langle s, e \rangle}{\langle s, s \rangle}

    Le Roux et al., "SDR - half-baked or well done?", 2019, arXiv 1811.02508, Eq. 3. Infinite where e is a
    multiple of s, NaN where either is silent.

    Example:
        >>> import numpy as np
        >>> s = np.array([1.0, 0.0, 1.0, 0.0])
        >>> round(si_sdr(s, s + np.array([0.0, 0.1, 0.0, 0.1])), 6)  # orthogonal noise, 20 dB below
        20.0
    """
    energy = float(reference @ reference)
    if energy == 0.0 or not estimate.any():
        return math.nan
    target = float(reference @ estimate) / energy * reference
    error = estimate - target
    with np.errstate(divide="ignore"):
        return float(10.0 * np.log10(np.float64(target @ target) / np.float64(error @ error)))


def rmse_scaled(reference: Signal, estimate: Signal) -> float:
    r"""Root mean squared error after the best scale on the *estimate*: the RMSE of the DVAE papers.

    .. math:: \sqrt{\tfrac{1}{n} \textstyle\sum_n (b e_n - s_n)^2},
        \qquad b = \frac{\langle s, e \rangle}{\langle e, e \rangle}

    The definition of the public code of Bie et al., 2021, "A benchmark of dynamical variational autoencoders
    applied to speech spectrogram modeling", Table 2 (which prints it times 100). A silent estimate has b = 0.
    """
    energy = float(estimate @ estimate)
    b = float(reference @ estimate) / energy if energy > 0.0 else 0.0
    return rmse_plain(reference, b * estimate)


def rmse_plain(reference: Signal, estimate: Signal) -> float:
    r"""Root mean squared error, without rescaling: :math:`\sqrt{\tfrac{1}{n} \sum_n (e_n - s_n)^2}`."""
    return float(np.sqrt(np.mean(np.square(estimate - reference))))


def pesq_rate(rate: int, band: str) -> int:
    """The rate at which PESQ scores a signal of this `rate`: its own where P.862 allows it, else 16 kHz.

    Wide band is defined at 16 kHz only, narrow band at 8 and 16 kHz.

    Example:
        >>> pesq_rate(8000, "nb"), pesq_rate(8000, "wb"), pesq_rate(48000, "nb")
        (8000, 16000, 16000)
    """
    return 8000 if rate == 8000 and band == "nb" else 16000


def pesq(reference: Signal, estimate: Signal, rate: int, band: str) -> float:
    """Perceptual evaluation of speech quality, mean opinion score, as package `pesq` computes it.

    Args:
        reference: the reference signal.
        estimate: the estimate, of the same length.
        rate: sampling rate of both; signals at rates that PESQ does not support are resampled to 16 kHz
            (`pesq_rate`).
        band: ``"wb"``, wide band (ITU-T P.862.2), or ``"nb"``, narrow band (P.862 mapped by P.862.1).

    Returns:
        The score, at most 4.644 (wide) or 4.549 (narrow band); NaN where PESQ finds no speech in the signals,
        or where they are shorter than the quarter second that it needs.
    """
    from pesq import BufferTooShortError, NoUtterancesError  # built from source, so imported where it is used
    from pesq import pesq as package_pesq

    if not reference.any() or not estimate.any():
        return math.nan
    target = pesq_rate(rate, band)
    pair = [resample(signal, rate, target) for signal in (reference, estimate)]
    try:
        return float(package_pesq(target, *pair, band))
    except (NoUtterancesError, BufferTooShortError):
        return math.nan


def stoi(reference: Signal, estimate: Signal, rate: int) -> float:
    """Short-time objective intelligibility, as package `pystoi` computes it (at 10 kHz, to which it
    resamples).

    Taal, Hendriks, Heusdens, Jensen, "An algorithm for intelligibility prediction of time-frequency weighted
    noisy speech", 2011. NaN where either signal is silent, or less than the 30 frames (384 ms) that it needs are left
    after the removal of silence.
    """
    return _intelligibility(reference, estimate, rate, extended=False)


def estoi(reference: Signal, estimate: Signal, rate: int) -> float:
    """Extended STOI, as package `pystoi` computes it; NaN where STOI is.

    Jensen, Taal, "An algorithm for predicting the intelligibility of speech masked by modulated noise
    maskers", 2016.
    """
    return _intelligibility(reference, estimate, rate, extended=True)


def itakura_saito(power: Signal, variance: Signal) -> Signal:
    r"""Itakura-Saito divergence of each frame, summed over its bins.

    .. math:: d_t = \sum_f r_{tf} - \log r_{tf} - 1, \qquad r_{tf} = x_{tf} / \sigma^2_{tf}

    It is minus the log-density of x under a circular complex Gaussian of variance :math:`\sigma^2`, up to
    terms in x alone. Bins whose power is exactly zero are left out: their divergence is infinite for
    every variance.

    Args:
        power: x, power spectrum (T, F).
        variance: the model's :math:`\sigma^2` (T, F).

    Returns:
        :math:`d_t`, of shape (T,).

    Example:
        >>> import numpy as np
        >>> itakura_saito(np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]])).round(4).item()  # 2 - log 2 - 1
        0.3069
    """
    positive = power > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(positive, power, 1.0) / np.where(positive, variance, 1.0)
        divergence = np.where(np.isposinf(ratio), np.inf, ratio - np.log(ratio) - 1.0)
    return np.asarray(divergence.sum(axis=-1), dtype=np.float64)


def score(reference: Signal, estimate: Signal, rate: int, *, with_pesq: bool = True) -> Scores:
    """Every figure of a pair of waveforms of equal length; all NaN where the estimate is not finite.

    Args:
        reference: the reference signal.
        estimate: the estimate.
        rate: sampling rate of both in Hz.
        with_pesq: compute PESQ (else NaN).
    """
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"got signals of shapes {reference.shape}, {estimate.shape}, expected (n,) twice")
    if not np.isfinite(estimate).all() or not reference.size:
        return Scores(*[math.nan] * len(Scores._fields))
    return Scores(
        si_sdr=si_sdr(reference, estimate),
        rmse_scaled=rmse_scaled(reference, estimate),
        rmse_plain=rmse_plain(reference, estimate),
        pesq_wb=pesq(reference, estimate, rate, "wb") if with_pesq else math.nan,
        pesq_nb=pesq(reference, estimate, rate, "nb") if with_pesq else math.nan,
        stoi=stoi(reference, estimate, rate),
        estoi=estoi(reference, estimate, rate),
    )


def _intelligibility(reference: Signal, estimate: Signal, rate: int, extended: bool) -> float:
    from pystoi import stoi as package_stoi

    # pystoi fails on less than two frames of 256 samples at 10 kHz; its result for a silent signal is meaningless.
    if not reference.any() or not estimate.any() or reference.size * 10000 < 512 * rate:
        return math.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(package_stoi(reference, estimate, rate, extended=extended))
    too_short = any("Not enough STFT frames" in str(w.message) for w in caught)
    return math.nan if too_short else value
