"""Warnings about unreliable likelihood estimates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.likelihood.estimation import LEAST_FOR_K, Plan

__all__ = ["K_LIMIT", "LEAST_SIZE", "VARIANCE_LIMIT", "warnings_of"]

K_LIMIT = 0.7
"""Pareto k-hat above which importance weights are not reliable (Vehtari et al., 2024)."""
LEAST_SIZE = 5.0
"""Effective sample size below which one or two particles dominate."""
VARIANCE_LIMIT = 1.0
"""Variance of a log-estimate above which its bias, about minus half the variance, is relevant."""
FAR = 10.0
"""Variance above which half of it does not approximate the bias."""


def warnings_of(figures: dict[str, NDArray[np.float64]], plan: Plan) -> dict[str, list[str]]:
    """Reasons why an estimate may differ from the log-likelihood, by estimator; the ELBO, being a bound, has none.

    Args:
        figures: from `evaluation.likelihood.estimation.estimate_all`.
        plan: the plan of the estimation.
    """
    warnings: dict[str, list[str]] = {}
    for name in ("iwae", "smc"):
        if name in figures and name in plan.estimators:
            own = _of_weights(figures, plan) if name == "iwae" else _of_filter(figures)
            warnings[name] = [*own, *_of_variance(name, figures[name])]
    return warnings


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
            f"iwae is a lower bound and not a reliable estimate: Pareto k-hat is above {K_LIMIT} in {count} of "
            f"{len(k)} sequences (largest {np.nanmax(k):.2f}), so more particles help little. "
            "Use smc, or a better guide."
        )
    elif few := int((ess < LEAST_SIZE).sum()):
        sentences.append(
            f"iwae has few effective particles: its effective sample size is below {LEAST_SIZE:.0f} of "
            f"{plan.particles} in {few} of {len(ess)} sequences (least {np.nanmin(ess):.1f}). "
            "Use more particles, or smc."
        )
    return sentences


def _of_filter(figures: dict[str, NDArray[np.float64]]) -> list[str]:
    ess = figures["smc_ess"].mean(axis=0)
    few = int((ess < LEAST_SIZE).sum())
    if not few:
        return []
    return [
        f"smc has particle degeneracy in {few} of {len(ess)} sequences: at some frame its effective sample size is "
        f"below {LEAST_SIZE:.0f} (least {np.nanmin(ess):.1f}), so it underestimates log p(x). Use more particles."
    ]


def _of_variance(name: str, values: NDArray[np.float64]) -> list[str]:
    if len(values) == 1:
        return []
    variance = values.var(axis=0, ddof=1)
    count = int((variance > VARIANCE_LIMIT).sum())
    if not count:
        return []
    bias = "by far" if variance.mean() > FAR else f"by {variance.mean() / 2:.2f} nats or more per sequence"
    return [
        f"{name} has a large variance: that of its logarithm over repeats is above {VARIANCE_LIMIT:.0f} in {count} of "
        f"{len(variance)} sequences (mean {variance.mean():.2f}), so it underestimates the log-likelihood {bias}. Use "
        "more particles."
    ]
