"""Latents, data and log-likelihoods of a run for ArviZ: ``python -m evaluation.export_arviz RUN``.

Draws the latents of some utterances of a split from the guide, and data given the latents from the model, and writes an
ArviZ `InferenceData` as NetCDF. See docs/how-to/arviz.md for its groups.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]

PARTICLES, SEQUENCES, LIMIT_GIB = 100, 10, 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.predictive_checks.inference_data`; returns the exit status."""
    parser = evaluation_parser(
        "export_arviz", "Export latents, data and log-likelihoods for ArviZ.", ["force"], writes=(), samples=True
    )
    parser.add_argument(
        "--particles",
        type=int,
        default=PARTICLES,
        metavar="K",
        help="draws of the posterior for each utterance (default: %(default)s)",
    )
    parser.add_argument(
        "--sequences",
        type=int,
        default=SEQUENCES,
        metavar="N",
        help="number of utterances, spread evenly over the split (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT_GIB, metavar="GIB", help="largest export allowed (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="NetCDF file (default: RUN/arviz.nc)")
    return launch(parser, argv, "evaluation.predictive_checks.inference_data:run_export")


if __name__ == "__main__":
    sys.exit(main())
