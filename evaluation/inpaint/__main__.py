"""The command line: ``python -m evaluation.inpaint RUN --input PATH --gaps 0.5:0.6,1.2:1.3 | --above 4000``."""

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
        "Fill in what is missing of speech, stretches of time or high frequencies, with a run as the prior.",
        without=("corpus", "root", "split", "mode", "latents"),
    )
    parser.add_argument("--input", type=Path, required=True, metavar="PATH", help="a sound file, or a folder of them")
    parser.add_argument("--gaps", metavar="A:B,...", help="seconds from and to of what is missing, such as 0.5:0.6")
    parser.add_argument("--above", type=float, metavar="HZ", help="frequency above which all is missing")
    parser.add_argument("--clean", type=Path, metavar="PATH", help="the whole ones, by the same names, to measure by")
    parser.add_argument("--inference", default="refine", metavar="METHOD", help="refine (default), vem or point")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where sounds and reports go (default: RUN/inpaint)")
    parser.add_argument("--jobs", type=int, metavar="J", help="processes for metrics; default: all cores")

    def command() -> None:
        request, given = parse(parser, argv)
        if given.gaps is None and given.above is None:
            raise UserError("nothing is missing: give --gaps 0.5:0.6,1.2:1.3 or --above 4000.")
        if given.jobs is not None and given.jobs < 0:
            raise UserError("--jobs takes a number from 0 up.")
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
