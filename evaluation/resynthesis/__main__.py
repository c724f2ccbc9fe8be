"""Analysis-resynthesis of a split: ``python -m evaluation.resynthesis RUN``.

Encodes and decodes each whole utterance, combines the model's amplitude with the phase of the input, inverts, and
computes the metrics of `evaluation.resynthesis.metrics`. Writes ``resynthesis.json`` and ``resynthesis.csv`` in the run
folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.resynthesis.command`; returns the exit status.

    Processes that compute metrics import this module, so it imports neither torch nor numpy.
    """
    parser = evaluation_parser(
        "resynthesis", "Resynthesise a split and measure the difference to the input.", writes=("json", "csv")
    )
    parser.add_argument("--audio", type=int, default=0, metavar="N", help="write N pairs of sounds to RUN/audio/")
    parser.add_argument("--jobs", type=int, default=None, metavar="J", help="processes for metrics; default: all cores")
    parser.add_argument("--without-pesq", action="store_true", help="leave PESQ out, where its package cannot be built")
    parser.add_argument("--mos", action="store_true", help="add DNSMOS, a quality without reference (extra [mos])")
    return launch(parser, argv, "evaluation.resynthesis.command:run_resynthesis")


if __name__ == "__main__":
    sys.exit(main())
