"""The report of an enhancement: rows with metrics, means and standard errors, and a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import Summary, text_table
from evaluation.restoration.scores import Row, differences, means
from evaluation.resynthesis.metrics import METRICS, Scores
from evaluation.resynthesis.worker_pool import Pair, score_all

if TYPE_CHECKING:
    from evaluation.enhance.command import Enhancement
    from evaluation.reporting.command_line import Request
    from evaluation.restoration.settings import RestorationSettings
    from inference.runs import Run

__all__ = ["COLUMNS", "FIGURES", "columns_of", "report_of", "scored", "table"]

FIGURES = Scores._fields
WHAT = ("file", "inference", "frames", "duration")
COST = ("bound_per_frame", "evidence_per_frame", "acceptance", "ess", "seconds", "real_time_factor")
COLUMNS = (*WHAT, *(name for f in FIGURES for name in (f, f"{f}_input", f"{f}_difference")), *COST)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The columns that some row has: figures such as the acceptance rate belong to one method only."""
    return [column for column in COLUMNS if any(column in row for row in rows)]


def _numbers(rows: Sequence[Row]) -> list[str]:
    """The columns of figures that some row has."""
    return [column for column in columns_of(rows) if column not in ("file", "inference")]


def scored(rows: Sequence[Row], pairs: Iterable[tuple[tuple[int, str], Any]], jobs: int) -> list[Row]:
    """Add the metrics of estimate and input, and their difference, to rows.

    Args:
        rows: the rows, ordered by method, then by recording.
        pairs: tag (index of the recording, method or ``""`` for the input), and reference, signal and rate.
        jobs: processes for metrics.
    """
    found: dict[tuple[int, str], Scores] = {}
    for tag, scores in score_all(((tag, Pair(*pair)) for tag, pair in pairs), jobs):
        found[tag] = scores
    count = len({i for i, _ in found})
    full = []
    for place, row in enumerate(rows):
        complete = row | differences(found[place % count, ""], found[place % count, str(row["inference"])])
        full.append({key: complete[key] for key in COLUMNS if key in complete})
    return full


def report_of(
    run: Run,
    request: Request,
    given: Enhancement,
    settings: RestorationSettings,
    rows: Sequence[Row],
    broken: dict[str, str],
) -> dict[str, Any]:
    """The report: inputs, settings, and the mean and standard error of each figure by method."""
    of = {name: [row for row in rows if row["inference"] == name] for name in given.methods}
    methods = {name: means(chosen, _numbers(chosen)) for name, chosen in of.items()}
    notes = [f"skipped {file}: it {fault}" for file, fault in broken.items()]
    missing = {c: sum(c in row and not math.isfinite(float(row[c])) for row in rows) for c in _numbers(rows)}
    notes += [f"{c} is not defined (NaN) in {n} of {len(rows)} rows" for c, n in missing.items() if n and "_d" not in c]
    return {
        **provenance("enhance", run, request),
        "corpus": None,
        "root": str(given.noisy),
        "clean": None if given.clean is None else str(given.clean),
        "num_sequences": len(rows) // len(given.methods),
        "observation": given.observation,
        "noise": vars(settings.noise),
        **({"reverb": vars(settings.reverb)} if given.observation == "reverb" else {}),
        "inference": vars(settings.inference),
        "metrics": methods[given.methods[0]],
        "methods": methods,
        "skipped": broken,
        "notes": notes,
    }


def table(report: dict[str, Any]) -> str:
    """The report as text: a column for the input and one for each method."""
    names = list(report["methods"])
    first = report["methods"][names[0]]
    head = (
        f"{report['num_sequences']} recordings of {report['root']}; prior {report['model']} "
        f"({report['run']}, step {report['step']})\n\n"
    )
    lines = []
    for figure in FIGURES:
        if figure not in first:
            continue
        metric = METRICS[figure]
        cells = [Summary(**first[f"{figure}_input"]).text(metric.decimals, metric.scale)]
        cells += [Summary(**report["methods"][n][figure]).text(metric.decimals, metric.scale) for n in names]
        lines.append([metric.label, *cells])
    known = {"bound_per_frame": ("bound/frame", 2), "evidence_per_frame": ("log p(y)/frame, estimated", 2),
             "acceptance": ("accepted", 3), "ess": ("effective particles", 1),
             "real_time_factor": ("real-time factor", 2)}  # fmt: skip
    for key, (label, decimals) in known.items():
        if any(key in report["methods"][n] for n in names):
            cells = [Summary(**of[key]).text(decimals) if key in (of := report["methods"][n]) else "" for n in names]
            lines.append([label, "", *cells])
    return head + text_table(["", "input", *names], lines)
