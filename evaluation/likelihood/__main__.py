"""Likelihood of held-out data: ``python -m evaluation.likelihood RUN --estimator elbo iwae smc --particles K``.

Each whole utterance of a split is a sequence, as in resynthesis; with ``--cut`` utterances are cut into sequences as
for training. Writes ``likelihood.json`` and ``likelihood.csv`` in the run folder; estimators of successive commands are
merged there, as long as data and weights are the same. Estimates are log-likelihoods in nats: higher is better.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.likelihood.arguments import join_estimators
from evaluation.reporting.command_line import evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.likelihood.command`; returns the exit status."""
    parser = evaluation_parser(
        "likelihood", "Estimate the likelihood of a split.", writes=("json", "csv"), samples=True
    )
    add = parser.add_argument
    add("--estimator", default="elbo,iwae,smc", metavar="E", help="elbo, iwae, smc, or several (default: all)")
    add(
        "--particles",
        type=int,
        default=100,
        metavar="K",
        help="particles: draws of the guide for each sequence (default: %(default)s)",
    )
    add("--chunk", type=int, metavar="C", help="particles computed together: less memory, same results")
    add("--repeats", type=int, default=1, metavar="R", help="independent estimates of each sequence, for the variance")
    add("--threshold", type=float, default=0.5, help="smc resamples below this share of K (default: %(default)s)")
    add("--scheme", default="systematic", help="resampling of smc: systematic, stratified, multinomial")
    add("--cut", action="store_true", help="cut utterances into sequences as for training")
    add("--picture", type=Path, metavar="FILE", help="draw the estimates as a function of the sequence length")
    return launch(
        parser,
        join_estimators(sys.argv[1:] if argv is None else argv),
        "evaluation.likelihood.command:run_likelihood",
    )


if __name__ == "__main__":
    sys.exit(main())
