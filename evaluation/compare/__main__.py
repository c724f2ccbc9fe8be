"""Runs side by side: ``python -m evaluation.compare RUN RUN ...``.

One table, in the layout of the tables of the DVAE papers (rows are runs, columns are figures), one picture of
it, and with ``--utterance`` the spectrograms of one utterance and of every run's resynthesis of it. Figures
are those of each run's ``resynthesis.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from evaluation.compare.table import COLUMNS, Entry, best_rows, differences, entries, heading, picture, report_of, table
from evaluation.reporting.command_line import guarded, say

if TYPE_CHECKING:
    pass

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.compare",
        description="Compare runs that evaluation.resynthesis has measured: table, picture, spectrograms.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or reports of --json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write it as CSV, a row per run")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the table (png, pdf, svg)")
    parser.add_argument(
        "--utterance",
        metavar="ID",
        help="draw this utterance (its file's name) beside its resyntheses, to FILE-ID, or compare-ID.png",
    )
    parser.add_argument("--device", default="cpu", metavar="D", help="of --utterance (default: %(default)s)")
    return guarded(lambda: _command(parser.parse_args(argv)))


def _command(given: argparse.Namespace) -> None:
    found = entries(given.runs)
    print(heading(found) + "\n\n" + table(found))
    starred = "; * is the best of its column" if any(best is not None for best in best_rows(found)) else ""
    print(f"\nmean ± standard error over utterances{starred}")
    for line in differences(found):
        print(f"warning: {line}")
    for entry in found:
        if entry.report.get("pesq_unscored", {}).get("count"):
            print(f"{entry.name}: PESQ found no speech in {entry.report['pesq_unscored']['count']} utterances")
        _say_if_older(entry)
    _write(given, found)


def _write(given: argparse.Namespace, found: Sequence[Entry]) -> None:
    from evaluation.reporting.plots import save_picture
    from evaluation.reporting.report import write_csv, write_json

    if given.json is not None:
        write_json(given.json, report_of(found))
    if given.csv is not None:
        rows = [_csv_row(entry) for entry in found]
        write_csv(given.csv, list(rows[0]), rows)
    if given.picture is not None:
        save_picture(picture(found), given.picture)
    for path in (given.json, given.csv, given.picture):
        if path is not None:
            say(f"wrote {path}")
    if given.utterance is not None:
        from evaluation.reporting.panels import utterance_picture

        figure, file = utterance_picture(found, given.utterance, given.device)
        table_picture = given.picture or Path("compare.png")
        drawn = table_picture.with_stem(f"{table_picture.stem}-{PurePosixPath(file).stem}")
        save_picture(figure, drawn)
        say(f"drew {file} to {drawn}")


def _csv_row(entry: Entry) -> dict[str, str | int | float]:
    row: dict[str, str | int | float] = {"run": entry.name}
    for key in (
        "model",
        "guide",
        "parameters",
        "checkpoint",
        "corpus",
        "split",
        "num_sequences",
        "mode",
        "latents",
    ):
        row[key] = entry.report.get(key, "")
    for name in COLUMNS:
        value = entry.figure(name)
        row[name] = float("nan") if value.mean is None else value.mean
        row[f"{name}_stderr"] = float("nan") if value.stderr is None else value.stderr
    return row


def _say_if_older(entry: Entry) -> None:
    """A run that was trained on since it was evaluated."""
    checkpoint = entry.run / str(entry.report.get("checkpoint"))
    if checkpoint.is_file() and checkpoint.stat().st_mtime > entry.file.stat().st_mtime:
        say(f"{entry.name}: {checkpoint.name} is newer than {entry.file.name}; evaluate the run again")


if __name__ == "__main__":
    sys.exit(main())
