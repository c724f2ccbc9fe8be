"""The picture of `evaluation.predictive_checks`: data and replications over time and as distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.predictive_checks.checks import Check
from evaluation.predictive_checks.spectra import Tracks, pause_runs, pauses
from evaluation.reporting.plots import BEST, FAINT, INK, new_figure, open_axes

__all__ = ["check_picture", "pause_counts", "pauses_by_tenth"]

POSTERIOR, PRIOR = "#3b6db3", BEST
Array = NDArray[np.float64]
TENTHS = 10


def check_picture(tracks: Check, names: Sequence[str], heading: str) -> Figure:
    """One utterance over time, and the distributions of energy, tilt and pauses of all.

    Args:
        tracks: data and replications.
        names: names of the utterances.
        heading: title of the figure.
    """
    figure = new_figure(10.5, 8.4, heading)
    grid = figure.subplots(3, 2)
    shown = int(np.argmax(np.asarray(tracks.lengths) >= np.median(tracks.lengths)))  # an utterance of median length
    for row, (what, unit) in enumerate((("energy", "dB"), ("tilt", "dB per octave"))):
        parts = {name: _parts(getattr(getattr(tracks, name), what), tracks.lengths) for name in Check._fields[:3]}
        _one_utterance(grid[row, 0], parts, shown, tracks.frame_s)
        title = f"{what} of one utterance, {names[shown].rpartition('/')[2]}"
        grid[row, 0].set_title(title, fontsize=9, loc="left", color=INK)
        grid[row, 0].set_ylabel(f"{what}, {unit}", fontsize=8, color=FAINT)
        _histograms(grid[row, 1], parts, relative=what == "energy")
        grid[row, 1].set_title(f"{what} of all utterances", fontsize=9, loc="left", color=INK)
        label = "energy below the loudest frame of the utterance, dB" if what == "energy" else "tilt, dB per octave"
        grid[row, 1].set_xlabel(label, fontsize=8, color=FAINT)
    _pause_lengths(grid[2, 0], tracks)
    _pauses_by_place(grid[2, 1], tracks)
    for axes in grid.flat:
        open_axes(axes)
    handles, labels = grid[1, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def pause_counts(tracks: Tracks, lengths: Sequence[int], edges: Array) -> Array:
    """Histogram of the lengths of pauses of all utterances, in frames: (S, bins)."""
    counts = np.zeros((len(tracks.energy), len(edges) - 1))
    for part in _parts(tracks.energy, lengths):
        for draw, silent in enumerate(pauses(part)):
            counts[draw] += np.histogram(pause_runs(silent)[1], edges)[0]
    return counts


def pauses_by_tenth(tracks: Tracks, lengths: Sequence[int]) -> Array:
    """Share of pause frames in each tenth of an utterance, mean over utterances: (S, 10)."""
    shares = []
    for part in _parts(tracks.energy, lengths):
        if part.shape[-1] >= TENTHS:
            tenths = np.array_split(pauses(part), TENTHS, axis=-1)
            shares.append(np.stack([tenth.mean(-1) for tenth in tenths], axis=-1))
    return np.asarray(np.mean(shares, axis=0)) if shares else np.full((len(tracks.energy), TENTHS), np.nan)


def _parts(track: Array, lengths: Sequence[int]) -> list[Array]:
    return np.split(track, np.cumsum(lengths)[:-1], axis=-1)


def _band(axes: Axes, x: Array, values: Array, colour: str, label: str, step: str | None = None) -> None:
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    axes.fill_between(x, low, high, color=colour, alpha=0.3, lw=0, label=label, step=step)  # type: ignore[arg-type]  # a stub without None


def _one_utterance(axes: Axes, parts: dict[str, list[Array]], shown: int, frame_s: float) -> None:
    observed = parts["observed"][shown][0]
    seconds = frame_s * np.arange(len(observed), dtype=np.float64)
    _band(axes, seconds, parts["posterior"][shown], POSTERIOR, "")
    axes.plot(seconds, parts["prior"][shown][0], color=PRIOR, lw=0.6, alpha=0.8)
    axes.plot(seconds, observed, color=INK, lw=0.9)
    axes.set_xlabel("time, s", fontsize=8, color=FAINT)
    axes.set_xlim(0.0, max(float(seconds[-1]), frame_s))
    spread = float(np.ptp(observed)) or 1.0
    axes.set_ylim(observed.min() - 0.2 * spread, observed.max() + 0.2 * spread)


def _histograms(axes: Axes, parts: dict[str, list[Array]], relative: bool) -> None:
    flat = {}
    for name, tracks in parts.items():
        flat[name] = np.concatenate([t - t.max(-1, keepdims=True) if relative else t for t in tracks], axis=-1)
    # leave out the few frames of digital silence
    low, high = np.quantile(flat["observed"], [0.001, 0.999])
    margin = 0.3 * (high - low) + 1.0
    edges = np.linspace(low - margin, min(high + margin, 0.0) if relative else high + margin, 41)
    middles: Array = ((edges[1:] + edges[:-1]) / 2).astype(np.float64)
    density = {name: np.stack([_share(draw, edges) for draw in values]) for name, values in flat.items()}
    _band(axes, middles, density["posterior"], POSTERIOR, "x ~ p(x|z), z ~ q(z|x): 5 to 95 %")
    _band(axes, middles, density["prior"], PRIOR, "x ~ p(x): 5 to 95 %, or one draw")
    axes.plot(middles, density["observed"][0], color=INK, lw=1.1, label="observed")
    axes.set_ylabel("share of frames, %", fontsize=8, color=FAINT)
    axes.set_ylim(bottom=0.0)


def _share(values: Array, edges: Array) -> Array:
    return np.asarray(100.0 * np.histogram(values, edges)[0] / len(values))


def _pause_lengths(axes: Axes, tracks: Check) -> None:
    edges = np.array([1, 2, 3, 5, 8, 13, 21, 34, 55, 10**9])
    labels = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
    labels[-1] = f"{edges[-2]}+"
    minutes = sum(tracks.lengths) * tracks.frame_s / 60.0
    positions = np.arange(len(labels), dtype=np.float64)
    for name, colour, shift in (("posterior", POSTERIOR, -0.16), ("prior", PRIOR, 0.16)):
        rates = pause_counts(getattr(tracks, name), tracks.lengths, edges) / minutes
        low, middle, high = np.quantile(rates, [0.05, 0.5, 0.95], axis=0)
        axes.vlines(positions + shift, low, high, color=colour, alpha=0.5, lw=5)
        axes.plot(positions + shift, middle, "_", color=colour, ms=9)
    axes.plot(positions, pause_counts(tracks.observed, tracks.lengths, edges)[0] / minutes, "o", color=INK, ms=4)
    axes.set_xticks(positions, labels)
    axes.set_xlabel(f"length of the pause, frames of {1000 * tracks.frame_s:g} ms", fontsize=8, color=FAINT)
    axes.set_ylabel("pauses per minute", fontsize=8, color=FAINT)
    title = "pauses by length: observed (dots), median (dashes)"
    axes.set_title(title, fontsize=9, loc="left", color=INK)


def _pauses_by_place(axes: Axes, tracks: Check) -> None:
    centres = (np.arange(TENTHS) + 0.5) / TENTHS
    for name, colour in (("posterior", POSTERIOR), ("prior", PRIOR)):
        _band(axes, centres, 100.0 * pauses_by_tenth(getattr(tracks, name), tracks.lengths), colour, "", step="mid")
    axes.step(centres, 100.0 * pauses_by_tenth(tracks.observed, tracks.lengths)[0], where="mid", color=INK, lw=1.1)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("position in the utterance, as a share of its length", fontsize=8, color=FAINT)
    axes.set_ylabel("pause, % of the time", fontsize=8, color=FAINT)
    axes.set_title("pauses by their place", fontsize=9, loc="left", color=INK)
