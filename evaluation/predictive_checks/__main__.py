r"""Predictive checks of spectra: ``python -m evaluation.predictive_checks RUN``.

Compares frame energy, spectral tilt and pauses (`evaluation.predictive_checks.spectra`) of utterances with those of
replications x ~ p(x | z), z ~ q(z | x) (posterior predictive) and x ~ p(x) (prior predictive). For a statistic S,

.. math:: p = P(S(x^{rep}) > S(x)) + \tfrac12 P(S(x^{rep}) = S(x))

is the (posterior) predictive p-value (Gelman, Meng & Stern, "Posterior predictive assessment of model fitness", 1996).
It is near 0 or 1 where the model does not generate such data; under a correct posterior it is not uniform but
concentrated around 1/2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]

PARTICLES = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.predictive_checks.command`; returns the exit status."""
    parser = evaluation_parser(
        "predictive_checks", "Predictive checks of energy, tilt and pauses.", writes=("json", "picture"), samples=True
    )
    parser.add_argument(
        "--particles",
        type=int,
        default=PARTICLES,
        metavar="K",
        help="replications of each utterance (default: %(default)s)",
    )
    parser.add_argument("--sequences", type=int, metavar="N", help="utterances, spread over the split (default: all)")
    return launch(parser, argv, "evaluation.predictive_checks.command:run_predictive_checks")


if __name__ == "__main__":
    sys.exit(main())
