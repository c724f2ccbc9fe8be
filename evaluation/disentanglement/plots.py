"""Grids of segments as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.reporting.plots import FAINT, INK, colour_bar, new_figure

__all__ = ["segment_grid"]


def segment_grid(
    cells: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    heading: str = "",
    *,
    colours: str = "feature",
    axes: tuple[str, str] = ("time", "feature"),
) -> Figure:
    """Short sequences of frames in a grid, on one colour scale: time to the right, frequency up.

    Args:
        cells: frames (R, C, T, D); NaN cells stay empty.
        rows: label of each row.
        columns: label of each column.
        heading: title of the figure.
        colours: what the colours are, with the unit.
        axes: what time and frequency of a cell span.
    """
    (down, across, frames, bins), gap = cells.shape[:2] + cells.shape[2:], 2
    step_x, step_y = frames + gap, bins + max(gap, bins // 12)
    whole = np.full((down * step_y, across * step_x), np.nan)
    for r in range(down):
        for c in range(across):
            whole[r * step_y : r * step_y + bins, c * step_x : c * step_x + frames] = cells[r, c].T[::-1]
    figure = new_figure(1.8 + 0.72 * across, 0.8 + 0.95 * down, heading)
    plot = figure.subplots()
    shown = whole[np.isfinite(whole)]
    low, high = np.percentile(shown, [1.0, 99.8])
    image = plot.imshow(whole, aspect="auto", cmap="magma", vmin=low, vmax=high, interpolation="nearest")
    plot.set_xticks([c * step_x + frames / 2 for c in range(across)], columns, fontsize=8, color=INK)
    plot.set_yticks([r * step_y + bins / 2 for r in range(down)], rows, fontsize=8, color=INK)
    plot.xaxis.tick_top()
    plot.tick_params(length=0)
    plot.spines[:].set_visible(False)
    plot.set_xlabel(
        f"each cell: {axes[0]} to the right, {axes[1]} up; labels: speaker (and domain) of each segment",
        fontsize=8,
        color=FAINT,
    )
    colour_bar(figure, image, plot, colours, shrink=3.0 / down)
    return figure
