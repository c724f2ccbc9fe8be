"""Enhancement of noisy recordings: ``python -m evaluation.enhance RUN --noisy PATH [--clean PATH] ...``."""

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
        "enhance",
        "Estimate the clean speech of noisy recordings, with a run trained on clean speech as the prior.",
        without=("corpus", "root", "split", "mode", "latents"),
        writes=("json", "csv"),
    )
    parser.add_argument("--noisy", type=Path, required=True, metavar="PATH", help="a sound file, or a folder of them")
    parser.add_argument(
        "--prior",
        choices=["default"],
        help="use a prior trained on synthetic voices in place of RUN; real speech needs a better one",
    )
    parser.add_argument(
        "--clean", type=Path, metavar="PATH", help="clean recordings of the same names, for the metrics"
    )
    parser.add_argument(
        "--inference",
        nargs="+",
        default=["vem"],
        metavar="METHOD",
        help="vem, refine, point, mala, metropolis, smc, or several to compare them (default: vem)",
    )
    parser.add_argument(
        "--observation",
        choices=["noise"],
        default="noise",
        help="kind of degradation (default: noise); for mixtures use evaluation.separate, for gaps evaluation.inpaint",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for sounds and reports (default: RUN/enhance)")
    parser.add_argument(
        "--audio", type=int, metavar="N", help="write sounds of the first N recordings only (default: all)"
    )
    parser.add_argument(
        "--evidence",
        type=int,
        default=0,
        metavar="K",
        help="estimate log p(y) at the result of each method with K particles (default: no estimate)",
    )
    parser.add_argument("--jobs", type=int, metavar="J", help="processes for metrics; default: all cores")

    def command() -> None:
        words = sys.argv[1:] if argv is None else list(argv)
        if "--prior" in words:
            from evaluation.enhance.prior import with_prior

            words = with_prior(words)
        request, given = parse(parser, words)
        for name in ("audio", "evidence", "jobs"):
            number = getattr(given, name)
            if number is not None and number < 0:
                raise UserError(f"--{name} {number}: expected at least 0.")
        from evaluation.enhance.command import Enhancement, run_command

        methods = [word for word in given.inference if "=" not in word]
        run_command(
            request._replace(overrides=(*request.overrides, *(word for word in given.inference if "=" in word))),
            Enhancement(
                noisy=given.noisy,
                clean=given.clean,
                methods=tuple(dict.fromkeys(methods)) or ("vem",),
                out=given.out or request.run / "enhance",
                audio=given.audio,
                evidence=given.evidence,
                jobs=all_cores() if given.jobs is None else given.jobs,
            ),
        )

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
