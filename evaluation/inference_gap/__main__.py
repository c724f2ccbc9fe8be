r"""Approximation and amortisation gap of guides: ``python -m evaluation.inference_gap RUN [RUN ...]``.

.. math:: \log p(x) - \mathrm{ELBO}[q] =
    \underbrace{\log p(x) - \mathrm{ELBO}[q^*]}_{\text{approximation}} +
    \underbrace{\mathrm{ELBO}[q^*] - \mathrm{ELBO}[q]}_{\text{amortisation}}

(Cremer, Li & Duvenaud, "Inference suboptimality in variational autoencoders", 2018). q* is the guide refined for each
sequence (`inference.estimation.refinement`); log p(x) is estimated by the best of the lower bounds of importance
weighting and particle filters. See docs/studies/inference_gap.md for the interpretation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.inference_gap.command`; returns the exit status."""
    parser = evaluation_parser(
        "inference_gap", "Approximation and amortisation gap of guides.", writes=("json", "picture"), samples=True
    )
    add = parser.add_argument
    add("--particles", type=int, default=100, metavar="K", help="particles of IWAE and SMC (default: %(default)s)")
    add("--refinement-steps", type=int, default=100, metavar="S", help="steps of refinement (default: %(default)s)")
    add("--lr", type=float, default=0.02, help="learning rate of refinement (default: %(default)s)")
    add("--chunk", type=int, default=20, metavar="C", help="particles computed together (default: %(default)s)")
    add(
        "--sequences", type=int, default=16, metavar="N", help="sequences, spread over the split (default: %(default)s)"
    )
    add(
        "--guide",
        choices=["auto-normal"],
        help="also fit this guide, Pyro's AutoNormal of each sequence: a mean field without amortisation",
    )
    return launch(parser, argv, "evaluation.inference_gap.command:run_inference_gap", several=True)


if __name__ == "__main__":
    sys.exit(main())
