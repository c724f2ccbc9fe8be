"""Enhancement of noisy recordings: ``python -m evaluation.enhance RUN --noisy PATH [--clean PATH] ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import guarded, launch
from evaluation.restoration.command_line import restoration_parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = restoration_parser(
        "enhance",
        "Estimate the clean speech of noisy recordings, with a run trained on clean speech as the prior.",
        "--noisy",
        clean={"metavar": "PATH", "help": "clean recordings of the same names, for the metrics"},
        inference={
            "nargs": "+",
            "default": ["point"],
            "help": "vem, refine, point, mala, metropolis, smc, or several to compare them (default: point)",
        },
    )
    parser.add_argument(
        "--prior",
        choices=["default"],
        help="use a prior trained on synthetic voices in place of RUN; real speech needs a better one",
    )
    parser.add_argument(
        "--observation",
        choices=["noise", "reverb"],
        default="noise",
        help="kind of degradation: noise (default), or reverb: reverberation and stationary noise; for mixtures use "
        "evaluation.separate, for gaps evaluation.inpaint",
    )
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
    words = sys.argv[1:] if argv is None else list(argv)

    def train_prior() -> None:
        from evaluation.enhance.prior import with_prior

        words[:] = with_prior(words)

    failed = guarded(train_prior) if "--prior" in words else 0
    return failed or launch(parser, words, "evaluation.enhance.command:run_command")


if __name__ == "__main__":
    sys.exit(main())
