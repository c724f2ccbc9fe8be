"""Unconditional generation: ``python -m evaluation.generate RUN --sequences N --seconds S --out DIR``.

Samples latents from the prior and spectra given the latents, computes waveforms by the algorithm of Griffin and Lim,
and writes sounds, a picture of them (``generated.png``) and a list (``generate.json``) into a new folder. For a model
of pen strokes it writes drawings, pictured beside those of the training split (`evaluation.generate.drawings`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.generate.arguments import add_sampling_arguments
from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.generate.command`; returns the exit status."""
    unused = ("corpus", "root", "split", "mode", "latents", "force")  # a folder that is there is never replaced
    parser = evaluation_parser("generate", "Sample sequences from the model.", without=unused)
    add_sampling_arguments(parser, 16, "number of sequences")
    parser.add_argument("--frames", type=int, metavar="T", help="length of each in frames, instead of --seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new or empty folder (default: RUN/generated)")
    parser.add_argument(
        "--no-audio", action="store_true", help="write the frames as one array (frames.npy) and no sounds"
    )
    parser.add_argument("--mos", action="store_true", help="add DNSMOS of each sound, a quality without reference")
    return launch(parser, argv, "evaluation.generate.command:run_generate")


if __name__ == "__main__":
    sys.exit(main())
