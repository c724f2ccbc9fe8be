"""A picture of figures in groups: one bar for each row of a table in each of its columns, with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.reporting.plots import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["grouped_bars"]

COLOURS = ("#1b1f24", "#8aa4c8", "#c2410c", "#e5a23c", "#4d7c4a", "#7c5295", "#3b6db3", "#b0899b", "#6a737d", "#97b885")


def grouped_bars(
    groups: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    label: str,
    heading: str,
    *,
    scale: float = 1.0,
    levels: Sequence[float] | None = None,
) -> Figure:
    """One group of bars beside the other.

    Args:
        groups: names of the groups, the columns of the table.
        rows: by name, a figure for each group: its ``mean`` and, unless None, ``stderr``.
        label: of the axis.
        heading: printed above.
        scale: factor of all figures.
        levels: a level for each group to compare with, drawn as a line across it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + max(1.4, 0.24 * len(rows)) * len(groups), 3.6 + 0.2 * len(rows)), dpi=130)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for k, (name, figures) in enumerate(rows.items()):
        places = [g - 0.4 + width * (k + 0.5) for g in range(len(groups))]
        errors = [scale * (f["stderr"] or 0.0) for f in figures]
        bars = [scale * f["mean"] for f in figures]
        colour = COLOURS[k % len(COLOURS)]
        error = {"ecolor": FAINT, "elinewidth": 0.8}
        axes.bar(places, bars, width, yerr=errors, color=colour, label=name, error_kw=error)
    for g, level in enumerate(levels or []):
        chance = "chance" if g == 0 else None
        axes.plot([g - 0.45, g + 0.45], [scale * level] * 2, color=INK, lw=1.0, ls=":", label=chance)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=9)
    axes.set_ylabel(label, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=FAINT)
    axes.set_ylim(bottom=0.0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    axes.set_title(heading, fontsize=9, color=INK, loc="left")
    return figure
