"""Exchange of a latent of the whole sequence: ``python -m evaluation.exchange RUN --source A --reference B``.

Decodes A with the latent of B, and B with that of A, after the last figure of the poster of Lin et al. (2023). Writes
four sounds and a picture of them in ``RUN/exchange/``, and ``exchange.json`` in the run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.disentanglement.arguments import add_pair_arguments
from evaluation.reporting.command_line import PICTURED, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.disentanglement.exchange`; returns the exit status."""
    description = "Decode two utterances with each other's latent of the sequence."
    parser = evaluation_parser("exchange", description, writes=PICTURED)
    add_pair_arguments(parser, "A", "B")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the sounds and the report (default: sounds in RUN/exchange, the report in RUN)",
    )
    return launch(parser, argv, "evaluation.disentanglement.exchange:run_exchange")


if __name__ == "__main__":
    sys.exit(main())
