"""When an estimate should not be trusted, in plain sentences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.likelihood.estimation import LEAST_FOR_K, Plan

__all__ = ["K_LIMIT", "LEAST_SIZE", "VARIANCE_LIMIT", "warnings_of"]

K_LIMIT = 0.7
"""Pareto k-hat above which importance weights are not reliable (Vehtari et al., 2024)."""
LEAST_SIZE = 5.0
"""Effective sample size below which one or two particles decide."""
VARIANCE_LIMIT = 1.0
"""Variance of a log-estimate above which it lies visibly, by about half of it, below the log-likelihood."""
FAR = 10.0
"""Variance above which half of it says nothing of how far."""


def warnings_of(figures: dict[str, NDArray[np.float64]], plan: Plan) -> dict[str, list[str]]:
    """What speaks against taking an estimate for the log-likelihood, by estimator; no sentence where nothing does.

    The ELBO is a bound and claims no more.

    Args:
        figures: what `evaluation.likelihood.estimation.estimate_all` found.
        plan: what was asked for.
    """
    found: dict[str, list[str]] = {}
    for name in ("iwae", "smc"):
        if name in figures and name in plan.estimators:
            of_weights = _of_weights(figures, plan) if name == "iwae" else _of_filter(figures)
            found[name] = [*of_weights, *_of_spread(name, figures[name])]
    return found


def _of_weights(figures: dict[str, NDArray[np.float64]], plan: Plan) -> list[str]:
    k, ess = (figures[name].mean(axis=0) for name in ("pareto_k", "iwae_ess"))
    sentences = []
    if plan.particles < LEAST_FOR_K:
        sentences.append(
            f"iwae with {plan.particles} particles is a bound of unknown tightness: Pareto k-hat needs at least "
            f"{LEAST_FOR_K} particles."
        )
    if count := int((k > K_LIMIT).sum()):
        sentences.append(
            f"iwae is no estimate of the log-likelihood, only a bound below it: Pareto k-hat is above {K_LIMIT} in "
            f"{count} of {len(k)} sequences (largest {np.nanmax(k):.2f}), so more particles help little. Take smc, or "
            "a better guide."
        )
    elif few := int((ess < LEAST_SIZE).sum()):
        sentences.append(
            f"iwae rests on few particles: its effective sample size is below {LEAST_SIZE:.0f} of {plan.particles} in "
            f"{few} of {len(ess)} sequences (least {np.nanmin(ess):.1f}). Take more particles, or smc."
        )
    return sentences


def _of_filter(figures: dict[str, NDArray[np.float64]]) -> list[str]:
    ess = figures["smc_ess"].mean(axis=0)
    few = int((ess < LEAST_SIZE).sum())
    if not few:
        return []
    return [
        f"smc nearly loses its particles in {few} of {len(ess)} sequences: at some frame its effective sample size is "
        f"below {LEAST_SIZE:.0f} (least {np.nanmin(ess):.1f}), so it lies below log p(x). Take more particles."
    ]


def _of_spread(name: str, values: NDArray[np.float64]) -> list[str]:
    if len(values) == 1:
        return []
    variance = values.var(axis=0, ddof=1)
    count = int((variance > VARIANCE_LIMIT).sum())
    if not count:
        return []
    lies = "far" if variance.mean() > FAR else f"some {variance.mean() / 2:.2f} nats or more per sequence"
    return [
        f"{name} varies from repeat to repeat: the variance of its logarithm is above {VARIANCE_LIMIT:.0f} in {count} "
        f"of {len(variance)} sequences (mean {variance.mean():.2f}), so it lies {lies} below the log-likelihood. Take "
        "more particles."
    ]
