"""Frechet distances of generated speech: ``python -m evaluation.frechet RUN [--features FILE|log_mel|speaker]``.

Computes the distance to the training set of sounds sampled from the model, of held-out speech, and of held-out speech
with the phase of Griffin and Lim, in the features of a given network or of log-mel bands. Writes ``frechet.json`` in
the run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.generate.arguments import add_sampling_arguments
from evaluation.reporting.command_line import SEGMENTS, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.frechet.command`; returns the exit status."""
    parser = evaluation_parser(
        "frechet", "Distance of generated sounds to the training set.", SEGMENTS, splits=("valid", "test")
    )
    add_sampling_arguments(parser, 1024, "sounds in each set, at most")
    parser.add_argument(
        "--features",
        default="log_mel",
        metavar="FILE",
        help="a network in TorchScript (.pt), torch.export (.pt2) or ONNX (.onnx) that takes waveforms (N, samples), "
        "speaker (embeddings, package resemblyzer) or log_mel (default)",
    )
    parser.add_argument(
        "--resamples", type=int, default=50, metavar="R", help="for the standard error (default: %(default)s)"
    )
    return launch(parser, argv, "evaluation.frechet.command:run_frechet")


if __name__ == "__main__":
    sys.exit(main())
