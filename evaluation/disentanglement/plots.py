"""Grids of segments as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.reporting.plots import INK, colour_bar, new_figure

__all__ = ["segment_grid"]


def segment_grid(cells: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], heading: str = "") -> Figure:
    """Short sequences of frames in a grid, on one colour scale: time to the right, frequency up.

    Args:
        cells: frames (R, C, T, D); NaN cells stay empty.
        rows: label of each row.
        columns: label of each column.
        heading: title of the figure.
    """
    (down, across, frames, bins), gap = cells.shape[:2] + cells.shape[2:], 2
    step_x, step_y = frames + gap, bins + max(gap, bins // 12)
    whole = np.full((down * step_y, across * step_x), np.nan)
    for r in range(down):
        for c in range(across):
            whole[r * step_y : r * step_y + bins, c * step_x : c * step_x + frames] = cells[r, c].T[::-1]
    figure = new_figure(1.8 + 0.72 * across, 0.8 + 0.95 * down, heading)
    axes = figure.subplots()
    shown = whole[np.isfinite(whole)]
    low, high = np.percentile(shown, [1.0, 99.8])
    image = axes.imshow(whole, aspect="auto", cmap="magma", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([c * step_x + frames / 2 for c in range(across)], columns, fontsize=8, color=INK)
    axes.set_yticks([r * step_y + bins / 2 for r in range(down)], rows, fontsize=8, color=INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    colour_bar(figure, image, axes, "feature", shrink=3.0 / down)
    return figure
