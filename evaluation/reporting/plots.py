"""Pictures of evaluations: pure functions from figures and sounds to matplotlib figures, and one that saves
them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError
from dvae_pyro.files import write_atomically
from evaluation.reporting.report import Summary
from evaluation.resynthesis.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Panel",
    "contact_sheet",
    "dot_table",
    "save_picture",
    "segment_grid",
    "spectrogram_db",
    "spectrogram_panels",
]

INK, FAINT, STRIPE, DOT, BEST = "#1b1f24", "#6a737d", "#f3f5f8", "#8aa4c8", "#c2410c"
RANGE_DB = 80.0


class Panel(NamedTuple):
    """One sound to draw: its title, samples and rate in Hz."""

    title: str
    samples: NDArray[np.float64]
    rate: int


def spectrogram_db(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Power in dB (frames, bins) under a Hann window of 32 ms every 8 ms, the same for every sound.

    Pictures of runs with different front ends can so be laid side by side.
    """
    window, hop = 2 * round(0.016 * rate), round(0.008 * rate)
    padded = np.pad(samples, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1], axis=-1)))
    return np.asarray(10.0 * np.log10(np.maximum(power, 1e-12)), dtype=np.float64)


def spectrogram_panels(panels: Sequence[Panel], columns: int, heading: str = "") -> Figure:
    """Spectrograms in a grid: one frequency axis and one colour scale for all, a time axis for each row.

    Args:
        panels: the sounds, row by row; the loudest point of the first is 0 dB.
        columns: panels in a row.
        heading: printed above all.
    """
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.9 + 4.3 * columns, 0.9 + 2.1 * rows), layout="constrained", dpi=150)
    grid = figure.subplots(rows, columns, sharex="row", sharey=True, squeeze=False)
    pictures = [spectrogram_db(p.samples, p.rate) for p in panels]
    peak = float(pictures[0].max())
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    seconds = [p.samples.size / p.rate for p in panels]
    for i, (axes, panel, decibels) in enumerate(zip(grid.flat, panels, pictures, strict=False)):
        image = axes.imshow(
            decibels.T - peak,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0.0,
            extent=(0.0, panel.samples.size / panel.rate, 0.0, panel.rate / 2000.0),
        )
        axes.set_title(panel.title, fontsize=9, loc="left", color=INK)
        axes.set_xlim(0.0, max(seconds[i - i % columns : i - i % columns + columns]))
        axes.set_ylim(0.0, max(p.rate for p in panels) / 2000.0)
        axes.spines[:].set_visible(False)
        axes.tick_params(labelsize=8, colors=FAINT)
        if i % columns == 0:
            axes.set_ylabel("kHz", fontsize=8, color=FAINT)
        if i + columns >= len(panels):
            axes.set_xlabel("s", fontsize=8, color=FAINT)
    bar = figure.colorbar(image, ax=list(grid.flat[: len(panels)]), shrink=min(1.0, 1.6 / rows), pad=0.015, aspect=25)
    bar.set_label("dB, loudest point of the first panel = 0", fontsize=8, color=FAINT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=FAINT)
    if heading:
        figure.suptitle(heading, fontsize=10, color=INK, ha="left", x=0.01)
    return figure


def contact_sheet(
    sequences: NDArray[np.floating], extent: tuple[float, float] | None, columns: int, heading: str = ""
) -> Figure:
    """Many sequences of frames at a glance, small and close together, on one colour scale.

    Args:
        sequences: frames (N, T, D): power spectra, drawn in dB under the loudest point of all, or other values.
        extent: seconds and kHz that a power spectrum spans; None says that these are other values, drawn as they are
            from the least to the largest.
        columns: sequences in a row.
        heading: printed above all.
    """
    from matplotlib.figure import Figure

    rows = -(-len(sequences) // columns)
    figure = Figure(figsize=(0.6 + 1.7 * columns, 0.7 + 1.2 * rows), layout="constrained", dpi=110)
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
        if i % columns == 0:
            axes.set_ylabel("kHz" if extent is not None else "", fontsize=7, color=FAINT)
        if i + columns >= len(values):
            axes.set_xlabel("s" if extent is not None else "frames", fontsize=7, color=FAINT)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=min(1.0, 2.0 / rows), pad=0.01, aspect=25)
    bar.set_label("dB under the loudest point" if extent is not None else "value", fontsize=7, color=FAINT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, colors=FAINT)
    if heading:
        figure.suptitle(heading, fontsize=9, color=INK, ha="left", x=0.01)
    return figure


def dot_table(
    names: Sequence[str],
    details: Sequence[str],
    columns: Sequence[tuple[Metric, Sequence[Summary]]],
    best: Sequence[int | None],
    heading: str,
    footnotes: Sequence[str] = (),
) -> Figure:
    """A table of figures, each drawn as a dot with its standard error on the scale of its column.

    Args:
        names: one for each row.
        details: small print under each name.
        columns: how a figure is printed, and its values, one for each row.
        best: for each column the row that is printed bold, or None.
        heading: printed above all.
        footnotes: printed below.
    """
    from matplotlib.figure import Figure

    rows, any_best = len(names), any(row is not None for row in best)
    top, bottom, row, column = 1.0, 0.25 + 0.2 * len(footnotes), 0.62, 1.3  # inches
    label = 0.4 + max(*(0.09 * len(name) for name in names), *(0.065 * len(detail) for detail in details))
    width, height = label + column * len(columns) + 0.15, top + bottom + row * rows
    figure = Figure(figsize=(width, height), dpi=150)
    base = figure.add_axes((0.0, bottom / height, 1.0, row * rows / height))
    base.set(xlim=(0.0, width), ylim=(rows - 0.5, -0.5))
    base.axis("off")
    for i in range(rows):
        if i % 2 == 0:
            base.axhspan(i - 0.5, i + 0.5, color=STRIPE, lw=0)
        base.text(0.15, i - 0.08, names[i], fontsize=10, weight="bold", color=INK, va="bottom")
        base.text(0.15, i + 0.02, details[i], fontsize=7.5, color=FAINT, va="top")
    for j, (metric, values) in enumerate(columns):
        left = label + column * j
        axes = figure.add_axes((left / width, bottom / height, (column - 0.12) / width, row * rows / height))
        _dot_column(axes, metric, values, best[j])
    figure.text(0.15 / width, 1.0 - 0.2 / height, heading, fontsize=11, weight="bold", color=INK, va="top")
    figure.text(
        0.15 / width,
        1.0 - 0.43 / height,
        "mean ± standard error over utterances" + ("; the best of each column in bold" if any_best else ""),
        fontsize=8,
        color=FAINT,
        va="top",
    )
    for k, note in enumerate(footnotes):
        figure.text(0.15 / width, (bottom - 0.22 - 0.2 * k) / height, note, fontsize=8, color=BEST, va="bottom")
    return figure


def _dot_column(axes: Axes, metric: Metric, values: Sequence[Summary], best: int | None) -> None:
    axes.set_facecolor("none")
    axes.set_title(f"{metric.label}\n{f'{metric.better} is better' if metric.better else ''}", fontsize=8, color=INK)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    spans = [(v.mean * metric.scale, (v.stderr or 0.0) * metric.scale) for v in values if v.mean is not None]
    low, high = min((m - e for m, e in spans), default=0.0), max((m + e for m, e in spans), default=1.0)
    margin = 0.12 * (high - low) or max(0.1 * abs(high), 1e-6)
    axes.set_xlim(low - margin, high + margin)
    for i, value in enumerate(values):
        colour, weight = (BEST, "bold") if i == best else (DOT, "normal")
        text = value.text(metric.decimals, metric.scale)
        axes.text(
            0.5,
            i - 0.17,
            text,
            transform=axes.get_yaxis_transform(),
            ha="center",
            va="center",
            fontsize=8.5,
            color=INK if value.mean is not None else FAINT,
            weight=weight,
        )
        axes.plot(
            [0.0, 1.0],
            [i + 0.2, i + 0.2],
            transform=axes.get_yaxis_transform(),
            color="#d5dae1",
            lw=0.8,
            zorder=1,
        )
        if value.mean is not None:
            place, error = value.mean * metric.scale, (value.stderr or 0.0) * metric.scale
            axes.plot([place - error, place + error], [i + 0.2] * 2, color=colour, lw=2.2, solid_capstyle="butt")
            axes.plot([place], [i + 0.2], "o", ms=6, color=colour, mec="white", mew=0.8)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format that the file's ending names."""
    stream = io.BytesIO()
    kind = path.suffix[1:].lower()
    if kind not in figure.canvas.get_supported_filetypes():
        known = ", ".join(f".{k}" for k in ("png", "pdf", "svg", "jpg"))
        raise UserError(f"{path}: cannot tell the picture's format from '{path.suffix}'. Use one of {known}.")
    figure.savefig(stream, format=kind)
    write_atomically(path, stream)


def segment_grid(cells: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], heading: str = "") -> Figure:
    """Short pieces of frames in a grid, on one colour scale: time to the right, frequency up.

    Args:
        cells: frames (R, C, T, D); cells that are not numbers stay empty.
        rows: what each row is.
        columns: what each column is.
        heading: printed above all.
    """
    from matplotlib.figure import Figure

    (down, across, frames, bins), gap = cells.shape[:2] + cells.shape[2:], 2
    step_x, step_y = frames + gap, bins + max(gap, bins // 12)
    whole = np.full((down * step_y, across * step_x), np.nan)
    for r in range(down):
        for c in range(across):
            whole[r * step_y : r * step_y + bins, c * step_x : c * step_x + frames] = cells[r, c].T[::-1]
    figure = Figure(figsize=(1.8 + 0.72 * across, 0.8 + 0.95 * down), layout="constrained", dpi=130)
    axes = figure.subplots()
    shown = whole[np.isfinite(whole)]
    low, high = np.percentile(shown, [1.0, 99.8])
    image = axes.imshow(whole, aspect="auto", cmap="magma", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([c * step_x + frames / 2 for c in range(across)], columns, fontsize=8, color=INK)
    axes.set_yticks([r * step_y + bins / 2 for r in range(down)], rows, fontsize=8, color=INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 3.0 / down), pad=0.01, aspect=25)
    bar.set_label("feature", fontsize=8, color=FAINT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, colors=FAINT)
    if heading:
        figure.suptitle(heading, fontsize=9, color=INK, ha="left", x=0.01)
    return figure
