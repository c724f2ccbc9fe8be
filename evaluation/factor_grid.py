"""Recombination of the latents of segments: ``python -m evaluation.factor_grid RUN``.

Decodes z1 of some segments with z2 of others, in a grid as in Figures 4 and 8 of Hsu, Zhang & Glass (2017): the content
should be constant along a row, the speaker along a column. Writes ``factor_grid.png`` and ``factor_grid.json`` in the
run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.disentanglement.arguments import add_position_argument
from evaluation.reporting.command_line import PICTURED, SEGMENTS, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.disentanglement.factor_grid`; returns the exit status."""
    parser = evaluation_parser("factor_grid", "Decode z1 of some segments with z2 of others.", SEGMENTS, PICTURED)
    for side, latent, count in (("row", "z1", 4), ("column", "z2", 10)):
        parser.add_argument(
            f"--{side}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"an utterance that provides {latent}; repeat for more",
        )
        parser.add_argument(
            f"--num-{side}s",
            type=int,
            default=count,
            metavar="N",
            help=f"number of {side}s, unless they are named (default: {count})",
        )
    add_position_argument(parser)
    return launch(parser, argv, "evaluation.disentanglement.factor_grid:run_factor_grid")


if __name__ == "__main__":
    sys.exit(main())
