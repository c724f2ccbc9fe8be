"""Traversal of the dimensions of a latent: ``python -m evaluation.traverse RUN``.

Sets one dimension of z1 or z2 of some segments to values in [-3, 3], keeps the others, and decodes: Figures 11 to 14 of
Hsu, Zhang & Glass (2017). Writes a picture of each dimension in ``RUN/traverse/``, and ``traverse.json`` in the run
folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.disentanglement.arguments import add_position_argument
from evaluation.reporting.command_line import SEGMENTS, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.disentanglement.traversal`; returns the exit status."""
    parser = evaluation_parser("traverse", "Vary each dimension of z1 and z2 through [-3, 3].", SEGMENTS)
    add = parser.add_argument
    add("--latent", action="append", default=[], metavar="Z", help="z1 or z2; repeat for more (default: all)")
    add("--dim", action="append", default=[], type=int, metavar="K", help="from 0; repeat for more (default: all)")
    add("--utterance", action="append", default=[], metavar="NAME", help="an utterance to use; repeat for more")
    add(
        "--sequences",
        type=int,
        default=5,
        metavar="N",
        help="utterances, with a segment of each, unless they are named (default: %(default)s)",
    )
    add_position_argument(parser)
    add("--values", type=int, default=9, metavar="V", help="number of values from -3 to 3 (default: %(default)s)")
    return launch(parser, argv, "evaluation.disentanglement.traversal:run_traversal")


if __name__ == "__main__":
    sys.exit(main())
