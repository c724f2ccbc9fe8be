"""Separation of mixed recordings: ``python -m evaluation.separate RUN RUN --mixture PATH [--clean DIR DIR]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import launch
from evaluation.restoration.command_line import restoration_parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = restoration_parser(
        "separate",
        "Separate the sources of a recording, with a run as the prior of each source.",
        "--mixture",
        clean={
            "nargs": "+",
            "metavar": "DIR",
            "help": "clean sources of the same names, a folder for each source, for the metrics",
        },
        inference={"default": "vem", "help": "vem (default), refine or point"},
    )
    parser.add_argument("--noise", action="store_true", help="model additional noise, as in evaluation.enhance")
    return launch(parser, argv, "evaluation.separate.command:run_command", several=True)


if __name__ == "__main__":
    sys.exit(main())
