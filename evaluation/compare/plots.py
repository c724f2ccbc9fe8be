"""The picture of `evaluation.compare`: the table, with each figure as a dot on the scale of its column."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.compare.table import COLUMNS, Entry, best_rows, differences, heading
from evaluation.reporting.plots import BEST, DOT, FAINT, INK, STRIPE
from evaluation.reporting.report import Summary
from evaluation.resynthesis.metrics import METRICS, Metric

__all__ = ["comparison_picture", "dot_table"]


def comparison_picture(runs: Sequence[Entry]) -> Figure:
    """The comparison as a picture."""
    return dot_table(
        [run.name for run in runs],
        [run.description for run in runs],
        [(METRICS[name], [run.figure(name) for run in runs]) for name in COLUMNS],
        best_rows(runs),
        heading=heading(runs),
        footnotes=differences(runs),
    )


def dot_table(
    names: Sequence[str],
    details: Sequence[str],
    columns: Sequence[tuple[Metric, Sequence[Summary]]],
    best: Sequence[int | None],
    heading: str,
    footnotes: Sequence[str] = (),
) -> Figure:
    """A table whose cells are numbers and dots with standard errors, on a common scale in each column.

    Args:
        names: name of each row.
        details: description printed under each name.
        columns: for each column its metric, and its value in each row.
        best: for each column the row printed in bold, or None.
        heading: title of the figure.
        footnotes: lines printed below.
    """
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
        "mean ± standard error over utterances"
        + ("; the best of each column in bold" if any_best else "")
        + ("; dots and bars: the same, on a scale of each column" if rows > 1 else ""),
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
    axes.spines[:].set_visible(False)
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
        if len(spans) < 2:
            continue  # a scale needs two values
        axes.plot(
            [0.0, 1.0],
            [i + 0.2, i + 0.2],
            transform=axes.get_yaxis_transform(),
            color="#d5dae1",
            lw=0.8,
            zorder=1,
        )
        if value.mean is not None:
            centre, error = value.mean * metric.scale, (value.stderr or 0.0) * metric.scale
            axes.plot([centre - error, centre + error], [i + 0.2] * 2, color=colour, lw=2.2, solid_capstyle="butt")
            axes.plot([centre], [i + 0.2], "o", ms=6, color=colour, mec="white", mew=0.8)
