"""LDA against the generalised eigenproblem that it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from evaluation.verification.lda import project, why_not


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def test_the_directions_solve_the_generalised_eigenproblem() -> None:
    speakers = np.repeat(np.arange(8), 6)
    mixing = random(5, 5, seed=1)
    train = (np.repeat(random(8, 5, seed=2), 6, axis=0) * [3, 2, 1, 0.1, 0.1] + random(48, 5)) @ mixing
    test = random(10, 5, seed=3) @ mixing
    means = np.stack([train[speakers == s].mean(0) for s in range(8)])
    within = sum(np.cov(train[speakers == s].T, bias=True) for s in range(8)) / 8
    between = np.cov(means.T, bias=True)
    vectors = eigh(between, within)[1][:, ::-1][:, :2]
    expected = (test - train.mean(0)) @ vectors
    found = project(train, [str(s) for s in speakers], test, 2)
    assert found is not None
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-8)


def test_what_cannot_be_projected() -> None:
    four = [str(i // 2) for i in range(8)]
    assert why_not(3, 3, four) is None
    assert why_not(4, 3, four) == "LDA to 4 dimensions of embeddings that have 3"
    assert why_not(4, 9, four) == "LDA to 4 dimensions needs more than 4 training speakers, got 4"
    assert why_not(2, 9, list("abcd")) == "LDA needs training speakers with several embeddings, got 4 of 4 speakers"
    flat = random(8, 1) @ random(1, 4)
    assert project(flat, four, flat, 3) is None
    assert project(random(8, 4), four, random(8, 4), 3) is not None


@pytest.mark.parametrize("dims", [1, 2])
def test_it_depends_on_nothing_but_the_space(dims: int) -> None:
    """An invertible map of all embeddings changes no cosine after LDA."""
    speakers = [str(i // 4) for i in range(24)]
    train, test, change = random(24, 4), random(6, 4, seed=1), random(4, 4, seed=2)
    one, other = project(train, speakers, test, dims), project(train @ change, speakers, test @ change, dims)
    assert one is not None and other is not None
    np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=1e-6)
