r"""The total variability model of i-vectors (Dehak et al., "Front-end factor analysis for speaker verification", 2011).

Of utterance u the Gaussians c of a mixture with means :math:`m_c` and covariances :math:`\Sigma_c = L_c L_c^\top` have
seen, by their responsibilities :math:`\gamma_{tc}`,

.. math:: N_{uc} = \sum_t \gamma_{tc}, \qquad F_{uc} = \sum_t \gamma_{tc}\, L_c^{-1} (x_t - m_c).

The mean of the utterance's own Gaussian is :math:`m_c + L_c T_c w_u` with :math:`w_u \sim N(0, I)`; responsibilities
are taken as known. With :math:`b_u = \sum_c T_c^\top F_{uc}` and :math:`P_u = I + \sum_c N_{uc} T_c^\top T_c`,

.. math:: w_u \mid u \sim N(P_u^{-1} b_u,\, P_u^{-1}), \qquad
          \log p(u) = \tfrac12 b_u^\top P_u^{-1} b_u - \tfrac12 \log |P_u| + \text{terms without } T.

The posterior mean of w is the utterance's **i-vector**. EM over T: the M-step solves
:math:`T_c \sum_u N_{uc} E[w_u w_u^\top] = \sum_u F_{uc} E[w_u]^\top` for each c, and then lets the prior of w be
:math:`N(0, G)` with :math:`G = \frac1U \sum_u E[w_u w_u^\top]`, which :math:`T \leftarrow T\,\mathrm{chol}(G)` takes
back to :math:`N(0, I)` (minimum divergence; Brummer, 2009). Both raise the marginal likelihood.

Letters: U utterances, C components, D values per frame, R dimensions of w. All in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Posterior", "Statistics", "log_likelihood", "posterior", "start", "step"]

AT_ONCE = 256  # utterances whose R x R matrices are held together
UNSEEN = 1e-6  # frames below which a component keeps its rows of T

Array = NDArray[np.float64]


class Statistics(NamedTuple):
    """What the components have seen of each utterance: N (U, C), and F (U, C, D), centred and whitened."""

    zeroth: Array
    first: Array


class Posterior(NamedTuple):
    """Of w given each utterance: mean (U, R), covariance (U, R, R); and log p(u) (U,), up to terms without T."""

    mean: Array
    covariance: Array
    log_likelihood: Array


def start(components: int, dim: int, rank: int, seed: int) -> Array:
    """A T (C, D, R) to begin with: small normal numbers."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(components, dim, rank, generator=generator, dtype=torch.float64)
    return np.asarray(drawn.numpy() * (0.1 / np.sqrt(rank)))


def posterior(T: Array, statistics: Statistics) -> Posterior:
    """The posterior of w, and the marginal likelihood of each utterance.

    Args:
        T: The subspace (C, D, R), whitened as F is.
        statistics: Of U utterances.
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
    """One step of EM.

    Returns:
        The next T (C, D, R), and the log-likelihood of the T given, up to terms without T.
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
    seen = statistics.zeroth.sum(0) > UNSEEN
    updated = T.copy()
    solved = np.linalg.solve(
        right.reshape(components, rank, rank)[seen],
        left.reshape(components, dim, rank)[seen].transpose(0, 2, 1),
    )
    updated[seen] = solved.transpose(0, 2, 1)
    prior = second.reshape(rank, rank) / len(statistics.zeroth)
    return np.asarray(updated @ np.linalg.cholesky(prior)), total


def _parts(statistics: Statistics) -> Iterator[Statistics]:
    for begin in range(0, len(statistics.zeroth), AT_ONCE):
        yield Statistics(*(values[begin : begin + AT_ONCE] for values in statistics))
