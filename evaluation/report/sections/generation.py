"""Section 8: generated sounds beside real speech, predictive checks and Frechet distances."""

from __future__ import annotations

from typing import Any

from evaluation.frechet.command import LABELS
from evaluation.predictive_checks.spectra import STATISTICS
from evaluation.report.collect import Report, RunFolder
from evaluation.report.media import embedded, flac
from evaluation.report.page import Page
from evaluation.reporting.report import Summary

__all__ = ["section"]

SOUNDS = 6
"""Sounds of each run, and of recordings."""
TAIL = 0.05
"""Predictive p-values below this, or above one less this, are marked."""


def section(page: Page) -> dict[str, Any]:
    """Players, the table of predictive checks and that of Frechet distances."""
    rows = [row for run in page.runs if (row := _generated(run, page)) is not None]
    real = _recordings(page) if any(row["sounds"] for row in rows) else []
    return {
        "rows": rows,
        "real": real,
        "checks": [
            {"name": run.name, "colour": page.colour(run), "rows": _checks(report), "draws": report["draws"]}
            for run in page.runs
            if (report := run.report("predictive_checks")) is not None
        ],
        "frechet": [
            {"name": run.name, "colour": page.colour(run), **_frechet(report)}
            for run in page.runs
            if (report := run.report("frechet")) is not None
        ],
        "commands": page.commands("generate", "predictive_checks", "frechet"),
    }


def _generated(run: RunFolder, page: Page) -> dict[str, Any] | None:
    reports: list[Report] = run.of("generate")
    if not reports:
        return None
    report, folder = reports[0].content, reports[0].file.parent
    files = [folder / item["file"] for item in (report.get("files") or [])[:SOUNDS]]
    return {
        "name": run.name,
        "colour": page.colour(run),
        "what": f"{report['num']} sequences, x {report['x']}",
        "not_finite": len(report.get("not_finite") or []),
        "sounds": [uri for file in files if (uri := embedded(file, page.budget)) is not None],
        "picture": embedded(folder / "generated.png", page.budget),
    }


def _recordings(page: Page) -> list[dict[str, str]]:
    """Recordings of the corpus."""
    found: dict[str, str] = {}
    for decoded in page.decoded.values():
        for item in decoded.sounds.values():
            if len(found) < SOUNDS and item.file not in found:
                code = f"data:audio/flac;base64,{flac(item.reference, item.rate)}"
                if page.budget.take(len(code)):
                    found[item.file] = code
    return [{"file": file, "sound": sound} for file, sound in found.items()]


def _checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, label in STATISTICS.items():
        metric = report["metrics"].get(name)
        if metric is None:
            continue
        row: dict[str, Any] = {"label": label, "observed": _text(metric["observed"])}
        for kind in ("posterior", "prior"):
            f = metric[kind]
            p = f["p"]
            row[kind] = {
                "text": f"{_text(f['mean'])} [{_text(f['low'])}, {_text(f['high'])}]",
                "p": _text(p),
                "extreme": p is not None and not TAIL <= p <= 1.0 - TAIL,
            }
        rows.append(row)
    return rows


def _frechet(report: dict[str, Any]) -> dict[str, Any]:
    cells = [
        (LABELS[name].format(split=report["split"]), Summary(m["mean"], m["stderr"], m["n"]).text(2), m["n"])
        for name, m in report["metrics"].items()
    ]
    return {"cells": cells, "features": f"{report['features']['dim']} features of {report['features']['name']}"}


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}".replace("-", "\u2212")
