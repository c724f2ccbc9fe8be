"""Comparison of runs: ``python -m evaluation.compare RUN RUN ...``.

Prints the figures of each run's ``resynthesis.json`` in one table, as in the tables of the DVAE papers (a row for each
run), and draws them on request; with ``--utterance`` also the spectrograms of one utterance and of the resynthesis of
it by each run, and with ``--out`` their sounds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from corpora.recipes.layouts.table import split_of
from dvae_pyro.command_line import DEVICE_HELP, Parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.compare.command`; returns the exit status."""
    parser = Parser(
        "evaluation.compare", "Compare runs that evaluation.resynthesis has measured: table, picture, spectrograms."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or reports of resynthesis")
    parser.add_argument(
        "--split", type=split_of, choices=["train", "valid", "test"], help="compare reports of this split"
    )
    parser.add_argument("--mode", choices=["gt", "gen"], help="compare reports of this mode")
    parser.add_argument("--mix-modes", action="store_true", help="compare reports of different modes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison here")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table with a row per run here")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the table here (png, pdf, svg)")
    parser.add_argument(
        "--utterance",
        metavar="NAME",
        help="draw this utterance (its file name) beside its resyntheses, to FILE-NAME, or compare-NAME.png",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the sounds of --utterance here (FLAC)")
    parser.add_argument("--device", default="auto", metavar="D", help="device for --utterance: " + DEVICE_HELP)
    return parser.run(argv, "evaluation.compare.command:run_command")


if __name__ == "__main__":
    sys.exit(main())
