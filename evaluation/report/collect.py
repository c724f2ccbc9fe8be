"""The contents of run folders: settings, training metrics, reports."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from corpora.registry import holds_frames
from evaluation.compare.table import Entry
from evaluation.reporting.comparability import run_names
from inference.objectives.elbo import BOUNDS
from inference.settings.resolve import load_run_settings
from inference.settings.tree import Settings

__all__ = ["Report", "RunFolder", "collect", "rows_of"]

Line = dict[str, Any]


class Report(NamedTuple):
    """A report: the JSON file written by an evaluation."""

    file: Path
    content: dict[str, Any]

    @property
    def evaluation(self) -> str:
        """The evaluation that wrote the report."""
        return str(self.content["evaluation"])


@dataclass(frozen=True)
class RunFolder:
    """A run folder, read.

    Attributes:
        name: name of the run on the page.
        path: the folder.
        settings: its config.yaml.
        lines: its metrics.jsonl.
        reports: all reports in the folder and one level below, by file name, those with the shortest names first.
    """

    name: str
    path: Path
    settings: Settings
    lines: Sequence[Line]
    reports: Sequence[Report]

    def report(self, evaluation: str) -> dict[str, Any] | None:
        """The report of an evaluation; of several, that with the shortest file name."""
        return next((report.content for report in self.of(evaluation)), None)

    def of(self, evaluation: str) -> list[Report]:
        """All reports of an evaluation."""
        return [report for report in self.reports if report.evaluation == evaluation]

    def split(self, name: str) -> list[Line]:
        """The lines of metrics.jsonl of "train" or "valid"."""
        return [line for line in self.lines if line.get("split") == name]

    @property
    def criterion(self) -> str:
        """The bound that selects best.pt, by its key in metrics.jsonl."""
        return BOUNDS[self.settings.train.objective]

    @property
    def best(self) -> Line | None:
        """The validation with the best bound."""
        lines = [line for line in self.split("valid") if self.criterion in line]
        return max(lines, key=lambda line: float(line[self.criterion]), default=None)

    @property
    def of_sound(self) -> bool:
        """Whether waveforms can be computed from the frames of the run."""
        return not holds_frames(self.settings.data) and self.settings.data.frontend != "waveform"

    @cached_property
    def entries(self) -> list[Entry]:
        """Rows of the table of metrics: one for each report of resynthesis."""
        found = [
            r for r in self.of("resynthesis") if {"metrics", "model", "parameters", "frontend"} <= r.content.keys()
        ]
        several = len(found) > 1
        return [Entry(self._row_name(r.content, several), self.path, r.content, r.file) for r in found]

    def _row_name(self, report: dict[str, Any], several: bool) -> str:
        conditions = ", ".join(str(report[key]) for key in ("split", "mode", "latents"))
        return f"{self.name} ({conditions})" if several else self.name


def collect(paths: Sequence[Path]) -> list[RunFolder]:
    """Read run folders.

    Raises:
        UserError: a folder is not that of a run, or is given twice.
    """
    settings = [load_run_settings(path) for path in paths]
    return [
        RunFolder(name, path, of_run, _lines(path / "metrics.jsonl"), _reports(path))
        for name, path, of_run in zip(run_names(paths), paths, settings, strict=True)
    ]


def rows_of(report: Path) -> dict[str, dict[str, str]]:
    """The rows of the CSV file beside a report, by utterance; empty if there is none."""
    path = report.with_suffix(".csv")
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        return {row["file"]: row for row in csv.DictReader(lines)}


def _lines(path: Path) -> list[Line]:
    """The lines of metrics.jsonl; an incomplete last line of a running training is omitted."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def _reports(folder: Path) -> list[Report]:
    """Every JSON file that names its evaluation."""
    found = []
    files = [*folder.glob("*.json"), *folder.glob("*/*.json")]
    for file in sorted(files, key=lambda f: (len(f.relative_to(folder).parts), len(f.name), f.name)):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and isinstance(content.get("evaluation"), str):
            found.append(Report(file, content))
    return found
