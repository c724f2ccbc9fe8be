"""Banded Gaussian posteriors against dense inverses."""

from __future__ import annotations

import pytest
import torch

from inference.observation.banded import solve_banded


@pytest.mark.parametrize(("frames", "width"), [(1, 1), (7, 1), (20, 4), (19, 12), (5, 9), (30, 2)])
def test_mean_covariance_and_determinant_are_those_of_the_dense_matrix(frames: int, width: int) -> None:
    torch.manual_seed(frames)
    rows = 3
    factor = torch.randn(rows, frames, frames, dtype=torch.complex128)
    factor = factor.tril().triu(1 - width) + 2.0 * width * torch.eye(frames)
    dense = factor @ factor.mH
    linear = torch.randn(rows, frames, dtype=torch.complex128)
    i, d = torch.arange(frames)[:, None], torch.arange(width)
    band = torch.where(i >= d, dense[:, i, (i - d).clamp_min(0)], torch.nan)
    found = solve_banded(band, linear)
    covariance = dense.inverse()
    torch.testing.assert_close(found.mean, (covariance @ linear[..., None])[..., 0])
    expected = torch.where(i >= d, covariance[:, i, (i - d).clamp_min(0)], 0.0)
    torch.testing.assert_close(found.covariance, expected)
    torch.testing.assert_close(found.log_pivots.sum(-1), dense.logdet().real)
