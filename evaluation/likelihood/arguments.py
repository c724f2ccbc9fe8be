"""Names of the estimators, and how the command line lists several of them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ESTIMATORS", "join_estimators"]

ESTIMATORS = ("elbo", "iwae", "smc")


def join_estimators(argv: Sequence[str]) -> list[str]:
    """The command line with the names after ``--estimator`` as one argument, separated by commas.

    Only names of estimators are joined, so any other argument may follow them.

    Example:
        >>> join_estimators(["--estimator", "elbo", "iwae", "RUN"])
        ['--estimator', 'elbo,iwae', 'RUN']
    """
    arguments: list[str] = []
    in_list = False
    for word in argv:
        if in_list and word in ESTIMATORS:
            arguments[-1] += f",{word}"
            continue
        in_list = bool(arguments) and arguments[-1] == "--estimator"
        arguments.append(word)
    return arguments
