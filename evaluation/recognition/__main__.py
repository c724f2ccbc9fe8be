"""Recognition across domains: ``python -m evaluation.recognition RUN [RUN ...] [--by LABEL] [--from VALUE]``.

The experiment of Hsu, Zhang & Glass (2017), section 4.3: one recogniser (`evaluation.recognition.ctc`) is trained on
features of one domain and tested on all domains. Features are FBank, or mean and log-variance of the latents of
segments: z1 and z2 of an FHVAE, z1 of a beta-VAE. A recogniser of FBank that is trained on all domains is the topline.
Domains are conditions made from clean speech (`corpora.audio.conditions`), or any label of the corpus, such as ``sex``.
Writes ``recognition.json`` and a picture in the folder of the first run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import PICTURED, SEGMENTS, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.recognition.command`; returns the exit status."""
    parser = evaluation_parser("recognition", "Train recognisers on one domain, test them on all.", SEGMENTS, PICTURED)
    parser.add_argument("--by", default="domain", metavar="LABEL", help="label of the domain (default: %(default)s)")
    parser.add_argument("--from", dest="source", metavar="VALUE", help="domain to train on (default: clean)")
    parser.add_argument("--hop", type=int, default=2, metavar="N", help="frames from feature to feature (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="recognisers for each row (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, metavar="N", help="updates of a recogniser (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="utterances in a batch (%(default)s)")
    parser.add_argument("--width", type=int, default=128, metavar="H", help="width of its LSTM (%(default)s)")
    return launch(parser, argv, "evaluation.recognition.command:run_recognition", several=True)


if __name__ == "__main__":
    sys.exit(main())
