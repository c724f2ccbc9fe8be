"""Detection error trade-off curves (Martin et al., 1997): false rejection over false acceptance, on normal deviates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import ndtri

from evaluation.reporting.plots import INK, new_figure, open_axes
from evaluation.verification.trials import Rates

__all__ = ["det_curves", "deviates"]

TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
LOWEST, HIGHEST = 5e-4, 0.9
COLOURS = ("#c2410c", "#3b6db3", "#4d7c4a", "#7c5295")
LINE_STYLES = {"raw": "-", "lda12": "--", "lda24": ":"}

Array = NDArray[np.float64]


def deviates(rates: Array) -> Array:
    """Normal quantiles of rates, the coordinates of the picture, clipped at its limits.

    In these coordinates the curve of two normal distributions of equal variance is a straight line.

    Example:
        >>> deviates(np.array([0.5, 0.1586552539])).round(6).tolist()
        [0.0, -1.0]
    """
    return np.asarray(ndtri(np.clip(rates, LOWEST / 2, 1 - LOWEST / 2)))


def det_curves(
    rates: Mapping[str, Mapping[str, Rates]], eer: Mapping[str, Mapping[str, float | None]], heading: str
) -> Figure:
    """One curve for each kind of embedding (colour) and scoring (line style), with its equal error rate as a dot.

    Args:
        rates: error rates at all thresholds, by kind, then by ``raw``, ``lda12``, ``lda24``.
        eer: equal error rates, likewise.
        heading: title of the figure.
    """
    figure = new_figure(7.6, 5.6, heading, dpi=150)
    axes = figure.subplots()
    span = deviates(np.array([LOWEST, HIGHEST]))
    axes.plot(span, span, color="#d5dae1", lw=0.8, zorder=0)
    for kind, colour in zip(rates, COLOURS * (1 + len(rates) // len(COLOURS)), strict=False):
        for name, curve in rates[kind].items():
            rate = eer[kind][name]
            label = kind + ("" if name == "raw" else f", LDA {name.removeprefix('lda')}")
            label += "" if rate is None else f": {100 * rate:.2f} %"
            x, y = deviates(curve.false_acceptance), deviates(curve.false_rejection)
            axes.plot(x, y, color=colour, ls=LINE_STYLES.get(name, "-"), lw=1.4, label=label)
            if rate is not None:
                point = deviates(np.array([rate]))
                axes.plot(point, point, "o", ms=5, color=colour, mec="white", mew=0.8)
    ticks = deviates(np.array(TICKS))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{100 * tick:g}" for tick in TICKS])
    axes.set(xlim=span, ylim=span, box_aspect=1.0)
    axes.set_xlabel("false acceptance, %", fontsize=9, color=INK)
    axes.set_ylabel("false rejection, %", fontsize=9, color=INK)
    axes.grid(color="#eceff3", lw=0.6)
    open_axes(axes)
    title = "embedding (colour), scoring (line):\nequal error rate (dot)"
    legend = figure.legend(fontsize=8, frameon=False, title=title, title_fontsize=8, loc="outside right upper")
    legend.set_alignment("left")
    return figure
