"""Section 9: everything else that evaluations have left in the run folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.report.collect import Report
from evaluation.report.media import embedded
from evaluation.report.page import Page

__all__ = ["figures", "section"]

ELSEWHERE = {"resynthesis", "likelihood", "inference_gap", "generate", "predictive_checks", "frechet", "compare"}
"""Evaluations that have a section of their own."""
MOST_FIGURES, MOST_FILES = 60, 12
TITLES = {
    "exchange": "Exchange of the latent of the sequence",
    "convert": "Conversion",
    "factor_grid": "Grid of factors",
    "traverse": "Traversal of latents",
    "probes": "Linear probes",
    "verification": "Speaker verification",
    "recognition": "Recognition",
    "enhance": "Enhancement",
    "separate": "Separation",
    "inpaint": "Inpainting",
    "imputation": "Imputation",
}


def section(page: Page) -> dict[str, Any]:
    """A block for each report: its figures, pictures and sounds."""
    blocks = []
    for run in page.runs:
        for report in run.reports:
            if report.evaluation not in ELSEWHERE:
                media = [(file.name, embedded(file, page.budget)) for file in _files(report)[:MOST_FILES]]
                blocks.append(
                    {
                        "title": TITLES.get(report.evaluation, report.evaluation.replace("_", " ")),
                        "run": run.name,
                        "colour": page.colour(run),
                        "figures": list(figures(report.content))[:MOST_FIGURES],
                        "pictures": [(name, uri) for name, uri in media if uri and uri.startswith("data:image")],
                        "sounds": [(name, uri) for name, uri in media if uri and uri.startswith("data:audio")],
                        "notes": [note for note in report.content.get("notes") or [] if isinstance(note, str)],
                    }
                )
    named = {"exchange", "factor_grid", "traverse", "probes", "verification"}
    return {"blocks": blocks, "commands": page.commands(*named)}


def figures(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The numbers of a report, by name.

    Example:
        >>> list(figures({"metrics": {"a": {"mean": 1.5, "stderr": None}, "b": {"c": {"mean": 2, "stderr": 0.5}}}}))
        [('a', '1.5'), ('b, c', '2 ±0.5')]
    """
    for part in ("metrics", "eer"):
        if isinstance(report.get(part), dict):
            prefix = () if part == "metrics" else ("equal error rate",)
            yield from _leaves(report[part], prefix)


def _leaves(tree: dict[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    mean = tree.get("mean")
    if isinstance(mean, (int, float)):
        stderr = tree.get("stderr")
        yield ", ".join(names), f"{mean:.4g}" + (f" \u00b1{stderr:.2g}" if isinstance(stderr, (int, float)) else "")
        return
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*names, str(name)))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield ", ".join((*names, str(name))), f"{value:.4g}"


def _files(report: Report) -> list[Path]:
    """The files that belong to a report: those that it lists, in its folder or in one of its name, and its picture."""
    folders = [report.file.parent / report.file.stem, report.file.parent / report.evaluation, report.file.parent]
    listed = [name for name in report.content.get("files") or [] if isinstance(name, str)]
    found = [next((f / name for f in folders if (f / name).is_file()), None) for name in listed]
    files = [file for file in found if file is not None]
    if not files and folders[0].is_dir():
        files = sorted(folders[0].iterdir())
    picture = report.file.with_suffix(".png")
    return list(dict.fromkeys([*([picture] if picture.is_file() else []), *files]))
