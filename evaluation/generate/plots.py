"""The picture of `evaluation.generate`: many generated sequences side by side."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from evaluation.reporting.plots import FAINT, RANGE_DB, colour_bar, new_figure

__all__ = ["contact_sheet"]


def contact_sheet(
    sequences: NDArray[np.floating], extent: tuple[float, float] | None, columns: int, heading: str = ""
) -> Figure:
    """Many small images of sequences, on one colour scale.

    Args:
        sequences: frames (N, T, D): power spectra, drawn in dB relative to the maximum of all, or other values.
        extent: duration in seconds and bandwidth in kHz of power spectra; None for other values, drawn on a linear
            scale from the minimum to the maximum.
        columns: sequences in a row.
        heading: title of the figure.
    """
    rows = -(-len(sequences) // columns)
    figure = new_figure(0.6 + 1.7 * columns, 0.7 + 1.2 * rows, heading, dpi=110)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # type: ignore[union-attr, call-arg]  # the stub knows no layout engine's own arguments
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = sequences.astype(np.float64)
    if extent is not None:
        values = 10.0 * np.log10(np.maximum(values, 1e-300) / max(float(values.max()), 1e-300))
    low, high = (-RANGE_DB, 0.0) if extent is not None else (float(values.min()), float(values.max()))
    wide, tall = extent or (float(values.shape[1]), float(values.shape[2]))
    for axes in grid.flat[len(values) :]:
        axes.set_axis_off()
    for i, (axes, frames) in enumerate(zip(grid.flat, values, strict=False)):
        colours = "magma" if extent is not None else "Greys"
        box = (0.0, wide, 0.0, tall)
        image = axes.imshow(frames.T, origin="lower", aspect="auto", cmap=colours, vmin=low, vmax=high, extent=box)
        axes.spines[:].set_visible(extent is None)
        axes.tick_params(labelsize=7, colors=FAINT, length=2)
        axes.xaxis.set_major_locator(MaxNLocator(3, prune="upper"))  # the next column begins where this one ends
        if i % columns == 0:
            axes.set_ylabel("frequency, kHz" if extent is not None else "value", fontsize=7, color=FAINT)
        if i + columns >= len(values):
            axes.tick_params(labelbottom=True)  # also above an empty place
            axes.set_xlabel("time, s" if extent is not None else "time, frames", fontsize=7, color=FAINT)
    label = "power, dB relative to the maximum of all" if extent is not None else "value"
    colour_bar(figure, image, list(grid.flat), label, shrink=2.0 / rows, size=7)
    return figure
