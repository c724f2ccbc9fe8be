"""Separation of mixed recordings: ``python -m evaluation.separate RUN RUN --mixture PATH [--clean DIR DIR]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import evaluation_parser, guarded, parse
from evaluation.resynthesis.worker_pool import all_cores


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser(
        "separate",
        "Separate the sources of a recording, with a run as the prior of each source.",
        without=("corpus", "root", "split", "mode", "latents"),
        writes=("json", "csv"),
    )
    parser.add_argument("--mixture", type=Path, required=True, metavar="PATH", help="a sound file, or a folder of them")
    parser.add_argument(
        "--clean",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="clean sources of the same names, a folder for each source, for the metrics",
    )
    parser.add_argument("--inference", default="vem", metavar="METHOD", help="vem (default), refine or point")
    parser.add_argument("--noise", action="store_true", help="model additional noise, as in evaluation.enhance")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for sounds and reports (default: RUN/separate)")
    parser.add_argument("--jobs", type=int, metavar="J", help="processes for metrics; default: all cores")

    def command() -> None:
        request, given = parse(parser, argv, several=True)
        if given.jobs is not None and given.jobs < 0:
            raise UserError(f"--jobs {given.jobs}: expected at least 0.")
        if len(given.runs) < 2:
            raise UserError("got one run, expected one for each source, at least two. The same run may be given twice.")
        if given.clean is not None and len(given.clean) != len(given.runs):
            raise UserError(
                f"--clean names {len(given.clean)} folders, expected one for each of {len(given.runs)} runs."
            )
        from evaluation.separate.command import Separation, run_command

        run_command(
            request,
            Separation(
                runs=tuple(given.runs),
                path=given.mixture,
                clean=None if given.clean is None else tuple(given.clean),
                method=given.inference,
                noisy=given.noise,
                out=given.out or request.run / "separate",
                jobs=all_cores() if given.jobs is None else given.jobs,
            ),
        )

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
