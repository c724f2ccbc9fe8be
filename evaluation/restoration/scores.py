"""Metrics of estimates beside those of the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from evaluation.reporting.report import summarise
from evaluation.resynthesis.metrics import Scores

__all__ = ["Row", "differences", "means"]

Row = dict[str, str | int | float]


def differences(before: Scores, after: Scores) -> Row:
    """Each metric of an estimate, of the input (``_input``), and their difference (``_difference``)."""
    row: Row = {}
    for name in Scores._fields:
        a, b = getattr(after, name), getattr(before, name)
        row |= {name: a, f"{name}_input": b, f"{name}_difference": a - b}
    return row


def means(rows: Sequence[Row], columns: Iterable[str]) -> dict[str, Any]:
    """Mean and standard error of each column."""
    return {column: summarise(float(row[column]) for row in rows)._asdict() for column in columns}
