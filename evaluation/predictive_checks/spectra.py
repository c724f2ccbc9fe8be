r"""Statistics of power spectra: energy, spectral tilt and pauses.

Spectra are x (..., T, F), the power of F bins evenly spaced from 0 Hz to half the sampling rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["STATISTICS", "Tracks", "energy_db", "pause_runs", "pauses", "statistics", "tilt_db", "track"]

Array = NDArray[np.float64]
TINY = 1e-12
LOWEST_BAND = 60.0
"""Lower limit of the octave bands in Hz, below the range of speech."""
PAUSE_DB = 30.0
"""Level of a pause below the loudest frame, the default of data.trim_db."""

STATISTICS = {
    "energy_mean": "energy, mean (dB)",
    "energy_spread": "energy, std. dev. in an utterance (dB)",
    "energy_change": "energy, change from frame to frame (dB)",
    "tilt_mean": "tilt, mean (dB/octave)",
    "tilt_spread": "tilt, std. dev. in an utterance (dB/octave)",
    "tilt_change": "tilt, change from frame to frame (dB/octave)",
    "pause_share": "pauses, share of time (%)",
    "pause_rate": "pauses, per second",
    "pause_mean": "pauses, mean length (ms)",
    "pause_longest": "pauses, longest of an utterance, mean (ms)",
}
"""Label of each statistic."""


class Tracks(NamedTuple):
    """Energy and tilt of every frame of all utterances, concatenated, (S, frames); S = 1 for data."""

    energy: Array
    tilt: Array


def track(spectra: Array, rate: float) -> Tracks:
    """Energy and tilt of spectra (..., T, F) at a sampling rate in Hz."""
    return Tracks(energy_db(spectra), tilt_db(spectra, rate))


def energy_db(x: Array) -> Array:
    """The energy of each frame in dB, 10 log10 of the sum over bins: (..., T)."""
    return _decibels(x.sum(-1))


def tilt_db(x: Array, rate: float) -> Array:
    r"""The spectral tilt of each frame in dB per octave, (..., T).

    The slope of a straight line through the mean power, in dB, of octave bands: [rate/4, rate/2], [rate/8, rate/4] and
    so on down to 60 Hz. With bands in place of bins all octaves have the same weight, and the noise of single bins
    averages out.

    Args:
        x: power spectra (..., T, F).
        rate: sampling rate in Hz.

    Raises:
        ValueError: fewer than two octaves contain a bin.
    """
    bins = x.shape[-1]
    hertz = np.linspace(0.0, rate / 2, bins)
    levels = []
    upper = rate / 2
    while upper / 2 >= LOWEST_BAND:
        inside = (hertz > upper / 2) & (hertz <= upper)
        if not inside.any():
            break
        levels.append(_decibels(x[..., inside].mean(-1)))
        upper /= 2
    if len(levels) < 2:
        raise ValueError(f"{bins} bins up to {rate / 2:g} Hz: the tilt needs two octaves with a bin each")
    octaves = np.arange(len(levels))[::-1] - (len(levels) - 1) / 2  # centred, so the slope is one weighted sum
    slope: Array = np.tensordot(octaves / (octaves**2).sum(), np.stack(levels), axes=1)
    return slope


def pauses(energy: Array, below_db: float = PAUSE_DB) -> NDArray[np.bool_]:
    """Whether each frame is a pause, more than `below_db` below the loudest frame of the utterance, (..., T)."""
    return np.asarray(energy < energy.max(-1, keepdims=True) - below_db)


def pause_runs(pause: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First frame and length in frames of each pause of one utterance (T,).

    Example:
        >>> pause_runs(np.array([True, False, False, True, True]))
        (array([0, 3]), array([1, 2]))
    """
    edges = np.diff(np.concatenate([[0], pause.astype(np.int64), [0]]))
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts


def statistics(tracks: Tracks, lengths: Sequence[int], frame_s: float) -> dict[str, Array]:
    """Each of `STATISTICS`, (S,), over all frames, or the mean over utterances of a statistic of one utterance.

    The mean length of pauses is NaN where there are none.
    """
    cuts = np.cumsum(lengths)[:-1]
    energy, tilt = (np.split(track, cuts, axis=-1) for track in tracks)
    silent = [pauses(part) for part in energy]
    runs = [[pause_runs(draw)[1] for draw in part] for part in silent]  # by utterance, then draw
    frames = sum(lengths)
    paused = sum(part.sum(-1) for part in silent)
    count = sum(np.array([len(of_draw) for of_draw in of_utterance]) for of_utterance in runs)
    longest = np.mean([[of_draw.max(initial=0) for of_draw in of_utterance] for of_utterance in runs], axis=0)
    with np.errstate(invalid="ignore"):
        mean_length = paused / count
    return {
        "energy_mean": tracks.energy.mean(-1),
        "energy_spread": np.mean([part.std(-1) for part in energy], axis=0),
        "energy_change": _change(energy),
        "tilt_mean": tracks.tilt.mean(-1),
        "tilt_spread": np.mean([part.std(-1) for part in tilt], axis=0),
        "tilt_change": _change(tilt),
        "pause_share": 100.0 * paused / frames,
        "pause_rate": count / (frames * frame_s),
        "pause_mean": 1000.0 * frame_s * mean_length,
        "pause_longest": 1000.0 * frame_s * longest,
    }


def _change(parts: Sequence[Array]) -> Array:
    """Mean absolute difference of successive frames, over all utterances."""
    steps = np.abs(np.concatenate([np.diff(part, axis=-1) for part in parts], axis=-1))
    return np.asarray(steps.mean(-1)) if steps.shape[-1] else np.full(len(steps), np.nan)


def _decibels(power: Array) -> Array:
    return np.asarray(10.0 * np.log10(np.maximum(power, TINY)))
