"""The work of `evaluation.report`: read the folders, decode, fill the templates, write the page."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors, write_atomically
from evaluation.compare.table import Entry
from evaluation.report.collect import RunFolder, collect, rows_of
from evaluation.report.decoding import choose, decode
from evaluation.report.media import Budget, magma
from evaluation.report.missing import run_all
from evaluation.report.page import Page, Source
from evaluation.report.sections import (
    curves,
    generation,
    latents,
    likelihood,
    listen,
    metrics,
    others,
    reproduce,
    runs,
    verdict,
)
from evaluation.reporting.command_line import say

__all__ = ["render", "run_report"]

MB = 1e6
COLOURS = 10
"""Colours of runs in report.css."""
MARGIN = 0.002
"""Part of the limit that stays free when the page is written again."""
SHARE = 0.6
"""Size of FLAC of speech over that of its samples, roughly; decides how many utterances are decoded."""


def run_report(options: argparse.Namespace) -> None:
    """Write the page, ``table.csv`` and ``table.tex``.

    Raises:
        UserError: a folder is not that of a run, or ``--max-mb`` has no room for the text.
    """
    if not options.max_mb > 0:
        raise UserError(f"--max-mb {options.max_mb:g}: expected a number above 0.")
    folders = collect(options.runs)
    failed: list[str] = []
    if options.run_missing:
        failed = run_all(folders)
        folders = collect(options.runs)
    out: Path = options.out
    page, table = _fitted(folders, failed, options.max_mb * MB, options.device)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "index.html", page.encode())
    for name in ("csv", "latex") if table[0] else ():
        write_atomically(out / f"table.{'csv' if name == 'csv' else 'tex'}", table[name == "latex"].encode())
    print(f"{out / 'index.html'}: {len(page.encode()) / MB:.1f} MB, {', '.join(run.name for run in folders)}")


def _fitted(
    folders: Sequence[RunFolder], failed: Sequence[str], limit: float, device: str
) -> tuple[str, tuple[str, str]]:
    """The page within the limit of its size, and the table of metrics as CSV and LaTeX."""
    sources: list[tuple[str, RunFolder, Entry | None]] = []
    for run in folders:
        sources += [(entry.name, run, entry) for entry in run.entries] or [(run.name, run, None)]
    rows = [Source(name, run, entry, number % COLOURS) for number, (name, run, entry) in enumerate(sources)]
    chosen, others_ = choose([source.entry for source in rows if source.entry is not None])
    some = _that_fit(rows, others_, limit)
    listened = [c.file for c in chosen]
    decoded = {s.name: decode(s.run, s.entry, [*listened, *others_[:some]], listened, device) for s in rows}
    budget = limit
    for _ in range(4):
        page = Page(folders, rows, chosen, others_, decoded, Budget(budget), failed)
        text, table = render(page)
        size = len(text.encode())
        if size <= limit:
            if page.budget.refused:
                say(f"{page.budget.refused} sounds or pictures are left out by --max-mb {limit / MB:g}")
            return text, table
        without = size - (budget - page.budget.left)  # what is not counted: text, charts, what stands twice
        budget = limit - without - MARGIN * limit
        if budget < 0:
            break
    raise UserError(f"--max-mb {limit / MB:g}: the page without sounds has {without / MB:.1f} MB. Give more.")


def _that_fit(sources: Sequence[Source], files: Sequence[str], limit: float) -> int:
    """How many utterances, besides those to listen to, the page is likely to have room for."""
    entry = next((source.entry for source in sources if source.entry is not None), None)
    if entry is None or not files:
        return 0
    frontend, rows = entry.report["frontend"], rows_of(entry.file)
    samples = [float(rows[file]["frames"]) * (frontend.get("hop") or 1) for file in files]
    size, count = 0.0, 0
    for n in samples:
        size += n * 2 * SHARE * 4 / 3 * (1 + len(sources))
        if size > 0.7 * limit:
            break
        count += 1
    return count


def render(page: Page) -> tuple[str, tuple[str, str]]:
    """The page, and the table of metrics as CSV and LaTeX.

    Sections take from the budget in the order of their weight: what is listened to, generated sounds, pictures, and
    last the sounds of all other utterances.
    """
    context: dict[str, Any] = {
        "listen": listen.section(page),
        "generation": generation.section(page),
        "latents": latents.section(page),
        "others": others.section(page),
        "verdict": verdict.section(page),
        "runs": runs.section(page),
        "curves": curves.section(page),
        "likelihood": likelihood.section(page),
        "reproduce": reproduce.section(page),
    }
    further, numbers = listen.further_sounds(page)
    playing = {player["number"] for player in context["listen"]["players"]}
    context["metrics"] = metrics.section(page, playing | numbers)
    context["sounds"] = [*context["listen"]["sounds"], *further]
    folder = resources.files("evaluation.report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("index.html.j2").render(
        title=", ".join(run.name for run in page.runs),
        style=Markup(folder.joinpath("report.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("report.js").read_text(encoding="utf-8")),
        palette=base64.b64encode(magma().tobytes()).decode(),
        **context,
    )
    return text, (context["metrics"]["csv"], context["metrics"]["latex"])
