r"""The total variability model of i-vectors (Dehak et al., "Front-end factor analysis for speaker verification", 2011).

The statistics of utterance u for the Gaussians c of a mixture with means :math:`m_c`, covariances
:math:`\Sigma_c = L_c L_c^\top` and responsibilities :math:`\gamma_{tc}` are

.. math:: N_{uc} = \sum_t \gamma_{tc}, \qquad F_{uc} = \sum_t \gamma_{tc}\, L_c^{-1} (x_t - m_c).

In the model, the mean of Gaussian c in the utterance is :math:`m_c + L_c T_c w_u` with :math:`w_u \sim N(0, I)`, given
the responsibilities. With :math:`b_u = \sum_c T_c^\top F_{uc}` and :math:`P_u = I + \sum_c N_{uc} T_c^\top T_c`,

.. math:: w_u \mid u \sim N(P_u^{-1} b_u,\, P_u^{-1}), \qquad
          \log p(u) = \tfrac12 b_u^\top P_u^{-1} b_u - \tfrac12 \log |P_u| + \text{terms without } T.

The posterior mean of w is the utterance's **i-vector**. EM over T: the M-step solves
:math:`T_c \sum_u N_{uc} E[w_u w_u^\top] = \sum_u F_{uc} E[w_u]^\top` for each c, and then lets the prior of w be
:math:`N(0, G)` with :math:`G = \frac1U \sum_u E[w_u w_u^\top]`, which :math:`T \leftarrow T\,\mathrm{chol}(G)`
transforms back to :math:`N(0, I)` (minimum divergence; Brummer, 2009). Both steps increase the marginal likelihood.

Shapes: U utterances, C components, D values per frame, R dimensions of w. All computations are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Posterior", "Statistics", "log_likelihood", "posterior", "start", "step"]

AT_ONCE = 256
"""Utterances whose R x R matrices are in memory together."""
UNSEEN = 1e-6
"""Number of frames below which a component keeps its rows of T."""

Array = NDArray[np.float64]


class Statistics(NamedTuple):
    """Statistics of utterances: N (U, C) and F (U, C, D), centred and whitened."""

    zeroth: Array
    first: Array


class Posterior(NamedTuple):
    """Posterior of w: mean (U, R) and covariance (U, R, R); and log p(u) (U,), up to terms without T."""

    mean: Array
    covariance: Array
    log_likelihood: Array


def start(components: int, dim: int, rank: int, seed: int) -> Array:
    """Initial T (C, D, R): normal numbers with standard deviation 0.1 / sqrt(R)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(components, dim, rank, generator=generator, dtype=torch.float64)
    return np.asarray(drawn.numpy() * (0.1 / np.sqrt(rank)))


def posterior(T: Array, statistics: Statistics) -> Posterior:
    """Posterior of w and marginal likelihood of each utterance.

    Args:
        T: The subspace (C, D, R), whitened like F.
        statistics: Statistics of U utterances.
    """
    components, dim, rank = T.shape
    outer = np.einsum("cdr,cds->crs", T, T).reshape(components, rank * rank)
    precision = np.eye(rank) + (statistics.zeroth @ outer).reshape(-1, rank, rank)
    b = statistics.first.reshape(-1, components * dim) @ T.reshape(components * dim, rank)
    covariance = np.linalg.inv(precision)
    mean = np.einsum("urs,us->ur", covariance, b)
    scores = 0.5 * (np.einsum("ur,ur->u", b, mean) - np.linalg.slogdet(precision)[1])
    return Posterior(mean, covariance, scores)


def log_likelihood(T: Array, statistics: Statistics) -> float:
    """log p of all utterances, up to terms without T."""
    return sum(float(posterior(T, part).log_likelihood.sum()) for part in _parts(statistics))


def step(T: Array, statistics: Statistics) -> tuple[Array, float]:
    """One EM step.

    Returns:
        The next T (C, D, R), and the log-likelihood of the present one, up to terms without T.
    """
    components, dim, rank = T.shape
    right = np.zeros((components, rank * rank))
    left = np.zeros((components * dim, rank))
    second, total = np.zeros(rank * rank), 0.0
    for part in _parts(statistics):
        mean, covariance, scores = posterior(T, part)
        moment = (covariance + np.einsum("ur,us->urs", mean, mean)).reshape(-1, rank * rank)
        right += part.zeroth.T @ moment
        left += part.first.reshape(-1, components * dim).T @ mean
        second += moment.sum(0)
        total += float(scores.sum())
    used = statistics.zeroth.sum(0) > UNSEEN
    updated = T.copy()
    solved = np.linalg.solve(
        right.reshape(components, rank, rank)[used],
        left.reshape(components, dim, rank)[used].transpose(0, 2, 1),
    )
    updated[used] = solved.transpose(0, 2, 1)
    prior = second.reshape(rank, rank) / len(statistics.zeroth)
    return np.asarray(updated @ np.linalg.cholesky(prior)), total


def _parts(statistics: Statistics) -> Iterator[Statistics]:
    for begin in range(0, len(statistics.zeroth), AT_ONCE):
        yield Statistics(*(values[begin : begin + AT_ONCE] for values in statistics))
