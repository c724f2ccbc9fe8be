"""Section 10: commands, versions, checksums, settings and references."""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from evaluation.report.collect import Report, RunFolder
from evaluation.report.page import Page

__all__ = ["bibtex", "command_of", "section", "version_of"]

PACKAGES = ("dvae-pyro", "torch", "pyro-ppl", "numpy", "librosa", "pesq", "pystoi", "arviz")
OPTIONS = {
    "resynthesis": ("split", "mode", "latents"),
    "likelihood": ("split", "mode"),
    "inference_gap": ("split", "mode"),
    "predictive_checks": ("split", "mode"),
    "frechet": ("split",),
}
"""Options of evaluations whose values their reports hold."""


def section(page: Page) -> dict[str, Any]:
    """Everything that is needed to compute the page again."""
    return {
        "runs": [_run(run, page.colour(run)) for run in page.runs],
        "versions": {"Python": platform.python_version(), **{p: v for p in PACKAGES if (v := version_of(p))}},
        "bibtex": bibtex(list(dict.fromkeys(run.settings.model.name for run in page.runs))),
    }


def _run(run: RunFolder, colour: int) -> dict[str, Any]:
    files = [run.path / name for name in ("config.yaml", "best.pt", "last.pt", "metrics.jsonl")]
    files += [report.file for report in run.reports]
    config = run.path / "config.yaml"
    commands = [f"python -m inference.svi --config {shlex.quote(str(config))} --run NEW_FOLDER"]
    return {
        "name": run.name,
        "colour": colour,
        "path": str(run.path),
        "seed": run.settings.seed,
        "data_seed": run.settings.data.seed,
        "dtype": run.settings.dtype,
        "commands": [*commands, *dict.fromkeys(command_of(run, report) for report in run.reports)],
        "checksums": [(str(file.relative_to(run.path)), _checksum(file)) for file in files if file.is_file()],
        "config": config.read_text(encoding="utf-8"),
    }


def command_of(run: RunFolder, report: Report) -> str:
    """The command that writes a report, as far as the report tells."""
    content = report.content
    if isinstance(content.get("command"), str):
        return str(content["command"])
    words = ["python", "-m", f"evaluation.{report.evaluation}", str(run.path)]
    if report.evaluation == "likelihood":
        names = [name for name in content.get("metrics", {}) if name in ("elbo", "iwae", "smc")]
        words += ["--estimator", *names]
    if report.evaluation == "exchange":
        words += ["--source", str(content.get("a")), "--reference", str(content.get("b"))]
    for option in OPTIONS.get(report.evaluation, ()):
        if content.get(option):
            words += [f"--{option}", str(content[option])]
    return shlex.join([*words, *map(str, content.get("overrides") or [])])


def bibtex(models: list[str]) -> str:
    """BibTeX entries of this software and of the papers of models: those of ``references.bib`` with their keys."""
    text = resources.files("evaluation.report").joinpath("references.bib").read_text(encoding="utf-8")
    entries = {key: entry for entry in re.split(r"\n(?=@)", text) if (key := _key(entry))}
    wanted = ["dvae_pyro", *models]
    return "\n".join(entry.strip() + "\n" for key, entry in entries.items() if key in wanted)


def _key(entry: str) -> str:
    match = re.match(r"@\w+\{(\w+),", entry)
    return match[1] if match else ""


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_of(package: str) -> str:
    """The installed version of a package, or an empty string."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
