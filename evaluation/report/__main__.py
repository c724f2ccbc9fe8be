"""A page about runs: ``python -m evaluation.report RUN [RUN ...] --out report/``.

Writes ``index.html``, one file that needs no network: verdict, runs, sounds with spectrograms, table of metrics,
training curves, latents, likelihood, generation and further reports in the run folders, with the commands that
reproduce them. Reports that do not exist are replaced by the command that writes them; ``--run-missing`` runs these
commands first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.command_line import DEVICE_HELP, Parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.report.command`; returns the exit status."""
    parser = Parser("evaluation.report", "Write a page about runs, with sounds, that needs no network.")
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    add("--out", type=Path, required=True, metavar="DIR", help="folder that gets index.html, table.csv and table.tex")
    add("--run-missing", action="store_true", help="run the evaluations whose reports are missing first")
    add("--max-mb", type=float, default=25.0, metavar="MB", help="limit of index.html in MB (default: %(default)s)")
    add("--device", default="auto", metavar="D", help="device that decodes sounds: " + DEVICE_HELP)
    return parser.run(argv, "evaluation.report.command:run_report")


if __name__ == "__main__":
    sys.exit(main())
