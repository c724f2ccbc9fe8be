"""Section 4: the table of metrics, with a dot for each utterance, and as LaTeX and CSV."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from evaluation.compare.table import COLUMNS, Entry, best_rows
from evaluation.report.charts import Dot, strip
from evaluation.report.collect import rows_of
from evaluation.report.page import Page
from evaluation.reporting.report import csv_text
from evaluation.resynthesis.metrics import METRICS, Metric

__all__ = ["csv_table", "latex_table", "section"]

MOST_DOTS = 150
"""Utterances that are drawn in a cell; of more, every so many-th by value."""
OPTIONAL = ("dnsmos",)
"""Metrics that not every evaluation computes."""
ARROWS = {"higher": "$\\uparrow$", "lower": "$\\downarrow$", None: ""}


def section(page: Page, audible: Collection[int]) -> dict[str, Any]:
    """The table.

    Args:
        page: the page.
        audible: numbers of the utterances whose sounds are on the page.
    """
    placed = [(place, source) for place, source in enumerate(page.sources, 1) if source.entry is not None]
    rows = [source for _, source in placed]
    entries = page.entries
    numbers = {file: number for number, file in enumerate(page.files)}
    columns = []
    best_of = dict(zip(COLUMNS, best_rows(entries), strict=True)) if entries else {}
    for name in [*best_of, *(name for name in OPTIONAL if any(entry.figure(name).n for entry in entries))]:
        best = best_of.get(name)
        metric = METRICS[name]
        values = [_values(entry, name) for entry in entries]
        every = [v * metric.scale for of_entry in values for v in of_entry.values()]
        span = (_quantile(every, 0.01), _quantile(every, 0.99)) if every else (0.0, 1.0)
        cells = []
        for i, source in enumerate(rows):
            figure = entries[i].figure(name)
            text = figure.text(metric.decimals, metric.scale)
            dots = _dots(values[i], metric, numbers)
            title = f"{metric.label} of {source.name}, utterance by utterance: {text}"
            mean = None if figure.mean is None else figure.mean * metric.scale
            error = None if figure.stderr is None else figure.stderr * metric.scale
            picture = strip(title, dots, mean, error, span, source.colour) if mean is not None else ""
            cells.append({"text": text.replace("-", "\u2212"), "value": mean, "best": i == best, "strip": picture})
        columns.append({"name": name, "metric": metric, "cells": cells, "low": span[0], "high": span[1]})
    return {
        "rows": [{"name": s.name, "colour": s.colour, "entry": s.entry, "place": place} for place, s in placed],
        "columns": columns,
        "latex": latex_table(entries) if entries else "",
        "csv": csv_table(entries) if entries else "",
        "audible": sorted(audible),
        "utterances": [{"file": file} for file in page.files],
        "sources": ["reference", *(source.name for source in page.sources)],
        "colours": [None, *(source.colour for source in page.sources)],
        "commands": page.commands("resynthesis"),
    }


def _values(entry: Entry, name: str) -> dict[str, float]:
    """The finite values of a metric, by utterance."""
    found = {file: float(row.get(name) or math.nan) for file, row in rows_of(entry.file).items()}
    return {file: value for file, value in found.items() if math.isfinite(value)}


def _dots(values: dict[str, float], metric: Metric, numbers: dict[str, int]) -> list[Dot]:
    known = sorted(((value, file) for file, value in values.items() if file in numbers))
    every = max(1, -(-len(known) // MOST_DOTS))
    return [
        Dot(value * metric.scale, numbers[file], f"{file}: {value * metric.scale:.{metric.decimals}f}")
        for value, file in known[::every]
    ]


def _quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def latex_table(entries: Sequence[Entry]) -> str:
    """The table for LaTeX with package booktabs; the best of each column is bold."""
    best = best_rows(entries)
    head = [f"{_tex(METRICS[name].label)} {ARROWS[METRICS[name].better]}".strip() for name in COLUMNS]
    lines = [
        "% mean and standard error over utterances; package booktabs",
        f"\\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}",
        "\\toprule",
        " & ".join(["run", *head]) + " \\\\",
        "\\midrule",
    ]
    for i, entry in enumerate(entries):
        cells = [_tex(entry.name)]
        for name, row in zip(COLUMNS, best, strict=True):
            mean, _, error = entry.figure(name).text(METRICS[name].decimals, METRICS[name].scale).partition(" \u00b1")
            mean = f"\\mathbf{{{mean}}}" if i == row else mean
            cells.append("--" if mean == "none" else f"${mean} \\pm {error}$" if error else f"${mean}$")
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def csv_table(entries: Sequence[Entry]) -> str:
    """The table as CSV: mean, standard error and number of utterances of each metric of each run, not scaled."""
    keys = ("model", "guide", "parameters", "corpus", "split", "mode", "latents", "checkpoint", "step", "seed")
    rows = []
    for entry in entries:
        row: dict[str, Any] = {"run": entry.name, **{key: entry.report.get(key, "") for key in keys}}
        for name in COLUMNS:
            figure = entry.figure(name)
            row |= {name: "" if figure.mean is None else figure.mean}
            row |= {f"{name}_stderr": "" if figure.stderr is None else figure.stderr, f"{name}_n": figure.n}
        rows.append(row)
    return csv_text(list(rows[0]), rows)


def _tex(text: str) -> str:
    for plain in "&%#_":
        text = text.replace(plain, f"\\{plain}")
    return text.replace("x1e-2", "$\\times 10^{2}$")
