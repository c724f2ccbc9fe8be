"""Inpainting of gaps and high frequencies: ``python -m evaluation.inpaint RUN --input PATH --gaps A:B``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import launch
from evaluation.restoration.command_line import restoration_parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = restoration_parser(
        "inpaint",
        "Fill in missing parts of speech, intervals of time or high frequencies, with a run as the prior.",
        "--input",
        clean={"metavar": "PATH", "help": "complete recordings of the same names, for the metrics"},
        inference={"default": "refine", "help": "refine (default), vem or point"},
    )
    parser.add_argument(
        "--gaps", metavar="A:B,...", help="missing intervals, start and end in seconds, such as 0.5:0.6"
    )
    parser.add_argument("--above", type=float, metavar="HZ", help="cut-off frequency; everything above it is missing")
    return launch(parser, argv, "evaluation.inpaint.command:run_command")


if __name__ == "__main__":
    sys.exit(main())
