"""Inpainting of gaps and high frequencies: ``python -m evaluation.inpaint RUN --input PATH --gaps A:B``."""

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
        "inpaint",
        "Fill in missing parts of speech, intervals of time or high frequencies, with a run as the prior.",
        without=("corpus", "root", "split", "mode", "latents"),
        writes=("json", "csv"),
    )
    parser.add_argument("--input", type=Path, required=True, metavar="PATH", help="a sound file, or a folder of them")
    parser.add_argument(
        "--gaps", metavar="A:B,...", help="missing intervals, start and end in seconds, such as 0.5:0.6"
    )
    parser.add_argument("--above", type=float, metavar="HZ", help="cut-off frequency; everything above it is missing")
    parser.add_argument(
        "--clean", type=Path, metavar="PATH", help="complete recordings of the same names, for the metrics"
    )
    parser.add_argument("--inference", default="refine", metavar="METHOD", help="refine (default), vem or point")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for sounds and reports (default: RUN/inpaint)")
    parser.add_argument("--jobs", type=int, metavar="J", help="processes for metrics; default: all cores")

    def command() -> None:
        request, given = parse(parser, argv)
        if given.gaps is None and given.above is None:
            raise UserError(
                "neither --gaps nor --above is given, so nothing is missing. Give --gaps 0.5:0.6,1.2:1.3 or "
                "--above 4000."
            )
        if given.jobs is not None and given.jobs < 0:
            raise UserError(f"--jobs {given.jobs}: expected at least 0.")
        from evaluation.inpaint.command import Inpainting, run_command

        run_command(
            request,
            Inpainting(
                path=given.input,
                gaps=given.gaps,
                above=given.above,
                clean=given.clean,
                method=given.inference,
                out=given.out or request.run / "inpaint",
                jobs=all_cores() if given.jobs is None else given.jobs,
            ),
        )

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
