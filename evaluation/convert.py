"""Conversion of an utterance: ``python -m evaluation.convert RUN --source A --reference B --out C.wav``.

Decodes the source with the reference's latent of the sequence: voice conversion if the speakers differ, denoising if
the reference is a clean recording, as in Figures 1 and 5 of Hsu, Zhang & Glass (2017). Writes the sound C.wav, the
report C.json, and C.png with spectrograms of source, reference and result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.disentanglement.arguments import add_pair_arguments
from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.disentanglement.conversion`; returns the exit status."""
    parser = evaluation_parser(
        "convert", "Decode an utterance with the latent of the sequence of another one.", writes=("json", "picture")
    )
    add_pair_arguments(parser, "the content", "the speaker or channel")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="C.wav", help="the sound; C.png and C.json are written beside it"
    )
    return launch(parser, argv, "evaluation.disentanglement.conversion:run_conversion")


if __name__ == "__main__":
    sys.exit(main())
