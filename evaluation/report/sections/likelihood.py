"""Section 7: estimates of the log-likelihood, and the gaps of the bound."""

from __future__ import annotations

from typing import Any

from evaluation.likelihood.report import LABELS
from evaluation.report.collect import RunFolder
from evaluation.report.page import Page
from evaluation.reporting.comparability import DATA_WARNINGS, different_keys
from evaluation.reporting.report import Summary, data_text

__all__ = ["section"]

GAPS = {"amortisation_gap": "amortisation", "approximation_gap": "approximation"}


def section(page: Page) -> dict[str, Any]:
    """A table of estimates, and bars of gaps."""
    estimates = [_estimates(run, page.colour(run)) for run in page.runs if run.report("likelihood")]
    gaps = [_gaps(run, page.colour(run)) for run in page.runs if run.report("inference_gap")]
    widest = max((row["approximation"] + row["amortisation"] for row in gaps), default=0.0) or 1.0
    concerned: dict[str, list[str]] = {}
    for row in estimates:
        for line in row["warnings"]:
            concerned.setdefault(line, []).append(row["name"])
    warnings = [f"{', '.join(names)}: {line}" for line, names in concerned.items()]
    warnings += [f"{row['name']}: {row['note']}" for row in gaps if row["note"]]
    reports = [report for run in page.runs if (report := run.report("likelihood")) is not None]
    for key in sorted({k for r in reports for k in different_keys(r, reports[0], [*DATA_WARNINGS, "sequences"])}):
        warnings.append(
            f"estimates of different {DATA_WARNINGS.get(key, 'lengths of sequences, so no figure can be compared')}"
        )
    return {
        "labels": {name: label for name, label in LABELS.items() if any(name in row["figures"] for row in estimates)},
        "estimates": estimates,
        "gaps": gaps,
        "widest": widest,
        "warnings": warnings,
        "commands": page.commands("likelihood", "inference_gap"),
    }


def _estimates(run: RunFolder, colour: int) -> dict[str, Any]:
    report = run.report("likelihood") or {}
    figures, warnings = {}, []
    for name, metric in report["metrics"].items():
        per_frame = metric["per_frame"]
        figures[name] = {
            "text": Summary(per_frame["mean"], per_frame["stderr"], per_frame.get("n", 0)).text(3),
            "particles": metric.get("particles"),
            "unscored": len(metric.get("unscored", [])),
        }
        warnings += metric.get("warnings", [])
    return {
        "name": run.name,
        "colour": colour,
        "figures": figures,
        "warnings": warnings,
        "data": f"{report['num_sequences']} {report.get('sequences', 'sequences')} of {data_text(report)}",
        "pareto_k": report.get("pareto_k"),
    }


def _gaps(run: RunFolder, colour: int) -> dict[str, Any]:
    report = run.report("inference_gap") or {}
    metrics = report["metrics"]
    texts = {name: Summary(**metrics[name]).text(2) for name in ("elbo", "log_evidence", *GAPS)}
    widths = {word: max(metrics[name]["mean"] or 0.0, 0.0) for name, word in GAPS.items()}
    words = "/".join(dict.fromkeys(report["verdict"].values()))
    return {
        "name": run.name,
        "colour": colour,
        "texts": texts,
        **widths,
        "verdict": words,
        "note": report.get("note"),
        "data": f"{report['num_sequences']} sequences, {report['particles']} particles, {report['steps']} steps",
    }
