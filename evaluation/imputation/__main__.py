"""Imputation of missing frames with a KVAE: ``python -m evaluation.imputation RUN --missing 0.8``.

Frames are removed at random, in a block in the middle, or after a prefix; the Kalman filter skips them, and the
smoother fills them (Fraccaro et al., 2017, Section 5.1). The baseline is linear interpolation of the latents a between
the observed frames. If the corpus has the true states (``bouncing_ball``), a linear map from the smoothed states z to
them is fitted on half of the sequences, and its R^2 on the other half is reported. The command writes
``imputation.json`` in the run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.imputation.command`; returns the exit status."""
    parser = evaluation_parser("imputation", "Fill missing frames with a KVAE.", without=["mode", "latents"])
    parser.add_argument(
        "--missing",
        type=float,
        default=0.8,
        metavar="P",
        help="fraction of frames that are removed at random (default: 0.8)",
    )
    parser.add_argument(
        "--prefix",
        type=int,
        default=4,
        metavar="T",
        help="number of first frames that are always observed (default: %(default)s)",
    )
    parser.add_argument("--sequences", type=int, metavar="N", help="sequences, spread over the split (default: all)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw one sequence (png, pdf, svg)")
    return launch(parser, argv, "evaluation.imputation.command:run_imputation")


if __name__ == "__main__":
    sys.exit(main())
