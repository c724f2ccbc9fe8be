"""Pictures that several evaluations draw, and their common style: functions from numbers and sounds to figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dvae_pyro.errors import UserError
from dvae_pyro.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage

__all__ = [
    "Difference",
    "Panel",
    "colour_bar",
    "grouped_bars",
    "new_figure",
    "open_axes",
    "save_picture",
    "spectrogram_db",
    "spectrogram_panels",
]

INK, FAINT, STRIPE, DOT, BEST = "#1b1f24", "#6a737d", "#f3f5f8", "#8aa4c8", "#c2410c"
COLOURS = (INK, DOT, BEST, "#e5a23c", "#4d7c4a", "#7c5295", "#3b6db3", "#b0899b", FAINT, "#97b885")
RANGE_DB = 80.0
CHANGE_DB = 30.0
"""Difference of spectrograms in dB that has the strongest colour."""
WINDOW_S, HOP_S = 0.032, 0.008


class Panel(NamedTuple):
    """A sound to draw: title, samples and rate in Hz."""

    title: str
    samples: NDArray[np.float64]
    rate: int


class Difference(NamedTuple):
    """The spectrogram of a sound less that of another one to draw: title, both samples and their rate in Hz."""

    title: str
    samples: NDArray[np.float64]
    other: NDArray[np.float64]
    rate: int


def new_figure(width: float, height: float, heading: str = "", *, dpi: int = 130) -> Figure:
    """An empty figure, in inches, with a heading at the upper left."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=dpi)
    if heading:
        figure.suptitle(heading, fontsize=9, color=INK, ha="left", x=0.01)
    return figure


def open_axes(axes: Axes, *hidden: str) -> None:
    """Small tick labels, and no spines at the top, at the right and at the `hidden` sides."""
    axes.tick_params(labelsize=8, colors=FAINT)
    for side in ("top", "right", *hidden):
        axes.spines[side].set_visible(False)


def colour_bar(
    figure: Figure, image: AxesImage, axes: Axes | Sequence[Axes], label: str, *, shrink: float, size: int = 8
) -> Colorbar:
    """The colour scale of an image, beside these axes."""
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, shrink), pad=0.01, aspect=25)
    bar.set_label(label, fontsize=size, color=FAINT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=size, colors=FAINT)
    return bar


def spectrogram_db(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Power in dB (frames, bins) under a Hann window of 32 ms every 8 ms.

    The window does not depend on the front end of a run, so that pictures of different runs are comparable.
    """
    window, hop = 2 * round(WINDOW_S / 2 * rate), round(HOP_S * rate)
    padded = np.pad(samples, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1], axis=-1)))
    return np.asarray(10.0 * np.log10(np.maximum(power, 1e-12)), dtype=np.float64)


def spectrogram_panels(panels: Sequence[Panel | Difference | None], columns: int, heading: str = "") -> Figure:
    """Spectrograms in a grid, with one frequency axis and one colour scale for all, and the time axis of each sound.

    Args:
        panels: sounds and differences, row by row, the first a sound, whose maximum is 0 dB; None leaves a place empty.
        columns: panels in a row.
        heading: title of the figure.
    """
    rows = -(-len(panels) // columns)
    figure = new_figure(0.9 + (4.3 if columns < 3 else 3.2) * columns, 0.9 + 2.1 * rows, heading, dpi=150)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    drawn = {i: panel for i, panel in enumerate(panels) if panel is not None}
    spectrograms = {i: spectrogram_db(panel.samples, panel.rate) for i, panel in drawn.items()}
    maximum = float(spectrograms[0].max())
    seconds = {i: panel.samples.size / panel.rate for i, panel in drawn.items()}
    kilohertz = max(panel.rate for panel in drawn.values()) / 2000.0
    sounds: dict[int, AxesImage] = {}
    changes: dict[int, AxesImage] = {}
    for i, axes in enumerate(grid.flat):
        if i not in drawn:
            axes.remove()
            continue
        panel, decibels = drawn[i], spectrograms[i] - maximum
        place: dict[str, Any] = {"origin": "lower", "aspect": "auto"}
        place["extent"] = (0.0, seconds[i], 0.0, panel.rate / 2000.0)
        if isinstance(panel, Difference):
            # below the colour range of sounds no difference is visible
            other = spectrogram_db(panel.other, panel.rate) - maximum
            change = decibels.clip(-RANGE_DB, 0.0) - other.clip(-RANGE_DB, 0.0)
            changes[i] = axes.imshow(change.T, cmap="RdBu_r", vmin=-CHANGE_DB, vmax=CHANGE_DB, **place)
        else:
            sounds[i] = axes.imshow(decibels.T, cmap="magma", vmin=-RANGE_DB, vmax=0.0, **place)
        axes.set_title(panel.title, fontsize=9, loc="left", color=INK)
        axes.set_xlim(0.0, seconds[i])
        axes.set_ylim(0.0, kilohertz)
        open_axes(axes, "left", "bottom")
        if i % columns == 0:
            axes.set_ylabel("frequency, kHz", fontsize=8, color=FAINT)
        if i + columns not in drawn:
            axes.set_xlabel("time, s", fontsize=8, color=FAINT)
    label = "dB, relative to the maximum of the first panel"
    colour_bar(figure, next(iter(sounds.values())), [grid.flat[i] for i in drawn], label, shrink=1.6 / rows)
    if changes:
        image = next(iter(changes.values()))
        colour_bar(figure, image, [grid.flat[i] for i in drawn], "difference, dB", shrink=1.6 / rows)
    return figure


def grouped_bars(
    groups: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    label: str,
    heading: str,
    *,
    groups_label: str,
    rows_label: str,
    scale: float = 1.0,
    levels: Sequence[float] | None = None,
) -> Figure:
    """A bar with its standard error for each row of a table in each of its columns, grouped by column.

    Args:
        groups: names of the columns.
        rows: by name, a figure for each column: its ``mean`` and, unless None, ``stderr``.
        label: label of the axis.
        heading: title of the figure.
        groups_label: what the columns are.
        rows_label: what the rows, which have the colours, are.
        scale: factor applied to all figures.
        levels: chance level of each group, drawn as a line across its bars.
    """
    figure = new_figure(1.5 + max(1.4, 0.24 * len(rows)) * len(groups), 3.6 + 0.2 * len(rows))
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for k, (name, figures) in enumerate(rows.items()):
        centres = [g - 0.4 + width * (k + 0.5) for g in range(len(groups))]
        errors = [scale * (f["stderr"] or 0.0) for f in figures]
        heights = [scale * f["mean"] for f in figures]
        error_style = {"ecolor": FAINT, "elinewidth": 0.8}
        colour = COLOURS[k % len(COLOURS)]
        axes.bar(centres, heights, width, yerr=errors, color=colour, label=name, error_kw=error_style)
    for g, level in enumerate(levels or []):
        name_once = "chance" if g == 0 else None
        axes.plot([g - 0.45, g + 0.45], [scale * level] * 2, color=INK, lw=1.0, ls=":", label=name_once)
    open_axes(axes)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=9)
    axes.set_xlabel(groups_label, fontsize=9, color=FAINT)
    axes.set_ylabel(label, fontsize=9, color=INK)
    axes.set_ylim(bottom=0.0)
    known = any(figure_["stderr"] for figures in rows.values() for figure_ in figures)
    title = f"{rows_label}; lines: standard errors" if known else rows_label
    legend = figure.legend(loc="outside lower left", fontsize=8, frameon=False, title=title or None, title_fontsize=8)
    legend.set_alignment("left")
    axes.set_title(heading, fontsize=9, color=INK, loc="left")
    return figure


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format that the file name ends in.

    Raises:
        UserError: for an unknown format.
    """
    stream = io.BytesIO()
    kind = path.suffix[1:].lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise UserError(f"{path}: unknown picture format '{path.suffix}'. Use one of .png, .pdf, .svg, .jpg.")
    figure.savefig(stream, format=kind)
    write_atomically(path, stream)
