"""The picture of `evaluation.inference_gap`: a stacked bar for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from evaluation.reporting.plots import BEST, DOT, FAINT, INK, new_figure, open_axes

__all__ = ["gap_picture"]

GAPS = (
    ("approximation_gap", BEST, "approximation: log p(x) to refined ELBO"),
    ("amortisation_gap", DOT, "amortisation: refined ELBO to ELBO"),
)


def gap_picture(reports: Sequence[Mapping[str, Any]], names: Sequence[str], heading: str) -> Figure:
    """Approximation and amortisation gap of each run as one bar, with its standard error.

    Args:
        reports: report of each run.
        names: name of each run.
        heading: title of the figure.
    """
    figure = new_figure(9.5, 1.5 + 0.55 * len(reports), heading)
    axes = figure.subplots()
    figures = [report["metrics"] for report in reports]
    widest = max(max(f["log_evidence"]["mean"] - f["elbo"]["mean"], 0.0) for f in figures) or 1.0
    for row, f in enumerate(figures):
        left = reach = 0.0
        for gap, colour, label in GAPS:
            width = max(f[gap]["mean"], 0.0)
            error = f[gap]["stderr"]
            bars = {"xerr": error, "error_kw": {"ecolor": INK, "elinewidth": 0.8}} if error is not None else {}
            axes.barh(row, width, left=left, color=colour, height=0.6, label=label if row == 0 else None, **bars)
            left += width
            reach = max(reach, left + (error or 0.0))
        text = f"ELBO {f['elbo']['mean']:.2f}, log p(x) ≥ {f['log_evidence']['mean']:.2f}"
        axes.text(reach + 0.03 * widest, row, text, va="center", fontsize=8, color=FAINT)
    labels = [
        f"{name}\n{report['model']}, guide {report['guide']}" if name != report["guide"] else name
        for name, report in zip(names, reports, strict=True)
    ]
    open_axes(axes, "left")
    axes.set_yticks(range(len(names)), labels, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.6 * widest)
    first = reports[0]
    of_what = f"{first['num_sequences']} sequences of {first['corpus']}, split {first['split']}"
    label = f"gap, nats per frame: mean and standard error over {of_what}"
    axes.set_xlabel(label, fontsize=9, color=FAINT)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure
