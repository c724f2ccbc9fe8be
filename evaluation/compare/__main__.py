"""Comparison of runs: ``python -m evaluation.compare RUN RUN ...``.

Prints the figures of each run's ``resynthesis.json`` in one table, as in the tables of the DVAE papers (a row for each
run), and draws them on request; with ``--utterance`` also the spectrograms of one utterance and of the resynthesis of
it by each run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.reporting.command_line import guarded

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.compare.command`; returns the exit status."""
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
        help="draw this utterance (its file name) beside its resyntheses, to FILE-ID, or compare-ID.png",
    )
    parser.add_argument("--device", default="cpu", metavar="D", help="device for --utterance (default: %(default)s)")
    options = parser.parse_args(argv)

    def command() -> None:
        from evaluation.compare.command import run_command

        run_command(options)

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
