"""Distances between two sets of feature vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError

__all__ = ["Distance", "frechet_distance", "measured"]

Features = NDArray[np.float64]
HALVINGS = 10
"""Random halvings for the estimate of the bias."""


class Distance(NamedTuple):
    """A distance estimated from samples.

    Attributes:
        value: the distance of all samples.
        stderr: its standard error, by resampling.
        bias: estimate of its positive bias at this number of samples.
    """

    value: float
    stderr: float
    bias: float


def frechet_distance(a: Features, b: Features) -> float:
    r"""The Frechet (2-Wasserstein, squared) distance of the Gaussians with the sets' means and covariances.

    .. math:: \|m_a - m_b\|^2 + \mathrm{tr}\,(C_a + C_b - 2 (C_a C_b)^{1/2})

    (Dowson & Landau, 1982; Heusel et al., "GANs trained by a two time-scale update rule", 2017.) With centred factors,
    :math:`C_a = A^\top A` and :math:`C_b = B^\top B`, the last trace is the sum of the singular values of
    :math:`A B^\top`. No matrix root is computed, so covariances may be singular, as with fewer samples than features.

    Args:
        a: features (n, d), n at least 2.
        b: features (m, d), m at least 2.

    Raises:
        UserError: the shapes do not match, or values are not finite.

    Example:
        >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
        9.0
    """
    for each in (a, b):
        if each.ndim != 2 or len(each) < 2 or each.shape[1] != a.shape[1]:
            raise UserError(
                f"features of shapes {a.shape} and {b.shape}: expected (samples, dimension), at least 2 samples "
                "of each and one dimension for both."
            )
        if not np.isfinite(each).all():
            raise UserError(f"{int((~np.isfinite(each)).any(1).sum())} of {len(each)} feature vectors are not finite.")
    left, right = _factor(a), _factor(b)
    across = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.square(left).sum() + np.square(right).sum() - 2.0 * across)


def _factor(features: Features) -> Features:
    """A triangular factor R, (min(n, d), d), of the covariance, C = R' R, by QR of the centred data."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1.0)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def measured(a: Features, b: Features, resamples: int, seed: int = 0) -> Distance:
    """The Frechet distance of two sets, with its standard error and bias.

    The standard error is that of the bootstrap over the samples of both sets. The bias of the distance is positive and
    about inversely proportional to the number of samples: the distance of halves of both sets, drawn `HALVINGS` times,
    exceeds that of the whole sets by about the bias of the latter (Chong & Forsyth, "Effectively unbiased FID", 2020,
    extrapolate to infinitely many samples). The bias is reported, not subtracted; with fewer samples than features it
    is underestimated.

    Args:
        a: features (n, d).
        b: features (m, d).
        resamples: bootstrap samples for the standard error, at least 2.
        seed: seed of the resampling.
    """
    generator = np.random.default_rng(seed)
    value = frechet_distance(a, b)
    drawn = [
        frechet_distance(*(each[generator.integers(len(each), size=len(each))] for each in (a, b)))
        for _ in range(resamples)
    ]
    halved = []
    for _ in range(HALVINGS if min(len(a), len(b)) >= 4 else 0):
        orders = [generator.permutation(len(each)) for each in (a, b)]
        for part in (0, 1):
            halves = (each[order[part::2]] for each, order in zip((a, b), orders, strict=True))
            halved.append(frechet_distance(*halves))
    bias = float(np.mean(halved)) - value if halved else float("nan")
    return Distance(value, float(np.std(drawn, ddof=1)), bias)
