r"""Gaussian posteriors with a banded precision, for many bands at once.

A precision :math:`\Lambda` (T, T) whose entries beyond P - 1 from the diagonal are zero is block tridiagonal in blocks
of B >= P - 1. With its blocks :math:`D_k` and :math:`E_k` (row k + 1, column k), the Cholesky factor has the blocks

.. math:: L_k L_k^H = D_k - G_{k-1}^H G_{k-1}, \qquad G_k = L_k^{-1} E_k^H,

and the inverse is found on the same band, from the last block to the first:

.. math:: \Sigma_{k,k+1} = -C_k \Sigma_{k+1,k+1}, \qquad \Sigma_{kk} = (L_k L_k^H)^{-1} + C_k \Sigma_{k+1,k+1} C_k^H,
    \qquad C_k = L_k^{-H} G_k

(Golub & Van Loan, "Matrix computations", Sec. 4.5; Takahashi, Fagan & Chin, 1973). The cost is linear in T.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import cholesky, solve_triangular
from torch.nn.functional import pad

__all__ = ["BandedGaussian", "solve_banded"]


class BandedGaussian(NamedTuple):
    r"""A complex Gaussian over T frames of each of R rows.

    Attributes:
        mean: (R, T).
        covariance: its entries on the band, Cov(s_i, s_{i-d}) in [:, i, d], (R, T, P); 0 for i < d.
        log_pivots: log of the squared diagonal of the Cholesky factor of the precision, (R, T); their sum is the
            log-determinant.
    """

    mean: Tensor
    covariance: Tensor
    log_pivots: Tensor


def solve_banded(precision: Tensor, linear: Tensor) -> BandedGaussian:
    r"""The Gaussian with density proportional to :math:`\exp(-s^H \Lambda s + 2 \Re(r^H s))`.

    Args:
        precision: the lower band of Lambda, its entry (i, i - d) in [:, i, d], (R, T, P), complex; positive
            definite. Entries with i < d are not read.
        linear: r, (R, T), complex.

    Example:
        >>> found = solve_banded(torch.full((1, 3, 1), 4.0 + 0j), torch.full((1, 3), 2.0 + 0j))
        >>> found.mean.real.tolist(), found.covariance[..., 0].real.tolist()
        ([[0.5, 0.5, 0.5]], [[0.25, 0.25, 0.25]])
    """
    rows, frames, width = precision.shape
    size = max(width - 1, min(frames, 8))
    count = -(-frames // size)
    padding = count * size - frames
    band = pad(precision, (0, 2 * size - width, 0, padding))
    band[:, frames:, 0] = 1.0
    right = pad(linear, (0, padding)).view(rows, count, size, 1)
    diagonal, below = _blocks(band.view(rows, count, size, 2 * size))
    inverses, links, solved, pivots = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    unit = torch.eye(size, dtype=band.dtype, device=band.device).expand(rows, -1, -1)
    for k in range(count):
        schur, rest = diagonal[:, k], right[:, k]
        if k:
            links.append(inverses[-1] @ below[:, k].mH)
            schur = schur - links[-1].mH @ links[-1]
            rest = rest - links[-1].mH @ solved[-1]
        factor = cholesky(schur)
        inverses.append(solve_triangular(factor, unit, upper=False))
        solved.append(inverses[-1] @ rest)
        pivots.append(factor.diagonal(dim1=-2, dim2=-1).real)
    means, within, before = list[Tensor](), list[Tensor](), list[Tensor]()
    for k in reversed(range(count)):
        own, mean = inverses[k].mH @ inverses[k], solved[k]
        if within:  # the block after this one
            gain = inverses[k].mH @ links[k]
            ahead = -(gain @ within[-1])
            before.append(ahead.mH)
            own = own - ahead @ gain.mH
            mean = mean - links[k] @ means[-1]
        within.append(own)
        means.append(inverses[k].mH @ mean)
    before.append(torch.zeros_like(within[-1]))
    covariance = _band(torch.stack(before[::-1], dim=1), torch.stack(within[::-1], dim=1), width)
    return BandedGaussian(
        torch.stack(means[::-1], dim=1).view(rows, -1)[:, :frames],
        covariance[:, :frames],
        2.0 * torch.cat(pivots, dim=-1)[:, :frames].log(),
    )


def _blocks(band: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks (k, k) and (k, k - 1), (R, K, B, B), from the band (R, K, B, 2 B) of row a of block k in [:, k, a]."""
    size = band.shape[-2]
    a = torch.arange(size, device=band.device)
    row, column = a[:, None], a
    lower = band[:, :, row, (row - column).clamp_min(0)].tril()
    return lower + lower.tril(-1).mH, band[:, :, row, size + row - column]


def _band(before: Tensor, within: Tensor, width: int) -> Tensor:
    """Entries (i, i - d) in [:, i, d], from the blocks (k, k - 1) and (k, k)."""
    size = within.shape[-1]
    a, d = torch.arange(size, device=within.device)[:, None], torch.arange(width, device=within.device)
    return torch.cat([before, within], dim=-1)[:, :, a, size + a - d].flatten(1, 2)
