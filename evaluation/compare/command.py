"""The work of `evaluation.compare`: read the reports, print the table, and write the requested files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dvae_pyro.errors import UserError
from evaluation.compare.plots import comparison_picture
from evaluation.compare.spectrograms import resyntheses
from evaluation.compare.table import (
    COLUMNS,
    Entry,
    best_rows,
    differences,
    entries,
    heading,
    refuse_mixed_modes,
    report_of,
    table,
)
from evaluation.reporting.command_line import say
from evaluation.reporting.plots import save_picture
from evaluation.reporting.report import CsvRow, write_csv, write_json

__all__ = ["run_command"]

DESCRIPTION = ("model", "guide", "parameters", "checkpoint", "corpus", "split", "num_sequences", "mode", "latents")
"""Columns of the CSV that describe a run, before its figures."""


def run_command(options: argparse.Namespace) -> None:
    """Compare runs; print the table and write the requested files."""
    runs = entries(options.runs, split=options.split, mode=options.mode)
    if not options.mix_modes:
        refuse_mixed_modes(runs)
    print(heading(runs) + "\n\n" + table(runs))
    starred = "; * is the best of its column" if any(best is not None for best in best_rows(runs)) else ""
    print(f"\nmean ± standard error over utterances{starred}")
    for line in differences(runs):
        print(f"warning: {line}")
    for run in runs:
        if run.report.get("pesq_unscored", {}).get("count"):
            print(f"{run.name}: PESQ found no speech in {run.report['pesq_unscored']['count']} utterances")
        _warn_if_outdated(run)
    _write(options, runs)


def _write(options: argparse.Namespace, runs: Sequence[Entry]) -> None:
    if options.json is not None:
        write_json(options.json, report_of(runs))
    if options.csv is not None:
        rows = [_csv_row(run) for run in runs]
        write_csv(options.csv, list(rows[0]), rows)
    if options.picture is not None:
        save_picture(comparison_picture(runs), options.picture)
    for path in (options.json, options.csv, options.picture):
        if path is not None:
            say(f"wrote {path}")
    if options.utterance is not None:
        found = resyntheses(runs, options.utterance, options.device)
        beside = options.picture or Path("compare.png")
        target = beside.with_stem(f"{beside.stem}-{PurePosixPath(found.file).stem}")
        save_picture(found.picture(), target)
        say(f"drew {found.file} to {target}")
        if options.out is not None:
            say(f"wrote {', '.join(map(str, found.write_sounds(options.out)))}")
    elif options.out is not None:
        raise UserError(f"--out {options.out} has no effect without --utterance NAME, whose sounds it gets.")


def _csv_row(run: Entry) -> CsvRow:
    row: CsvRow = {"run": run.name, **{key: run.report.get(key, "") for key in DESCRIPTION}}
    for name in COLUMNS:
        mean, stderr, _ = run.figure(name)
        row[name] = float("nan") if mean is None else mean
        row[f"{name}_stderr"] = float("nan") if stderr is None else stderr
    return row


def _warn_if_outdated(run: Entry) -> None:
    """Say that a run was trained further after it was evaluated."""
    checkpoint = run.run / str(run.report.get("checkpoint"))
    if checkpoint.is_file() and checkpoint.stat().st_mtime > run.file.stat().st_mtime:
        say(f"{run.name}: {checkpoint.name} is newer than {run.file.name}; evaluate the run again")
