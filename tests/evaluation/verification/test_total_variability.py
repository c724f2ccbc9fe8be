"""The total variability model against the Gaussian that it is: conditioning, marginals, EM, a known subspace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.verification.ivector import total_variability
from evaluation.verification.ivector.total_variability import Statistics, log_likelihood, posterior, start, step


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def made(utterances: int, T: np.ndarray, frames: int = 40, seed: int = 0) -> tuple[Statistics, np.ndarray]:
    """Statistics drawn from the model, the component of each frame known; and the w they were drawn with."""
    components, dim, rank = T.shape
    w = random(utterances, rank, seed=seed)
    zeroth = np.zeros((utterances, components))
    first = np.zeros((utterances, components, dim))
    for u in range(utterances):
        which = torch.randint(components, (frames,), generator=torch.Generator().manual_seed(seed + u)).numpy()
        x = np.einsum("tdr,r->td", T[which], w[u]) + random(frames, dim, seed=10_000 + seed + u)
        np.add.at(zeroth[u], which, 1.0)
        np.add.at(first[u], which, x)
    return Statistics(zeroth, first), w


def test_the_posterior_is_that_of_the_joint_gaussian() -> None:
    """w and all frames as one Gaussian vector, conditioned and scored by brute force."""
    components, dim, rank, frames = 3, 2, 2, 7
    T = random(components, dim, rank)
    which = np.array([0, 2, 2, 0, 2, 0, 2])  # component 1 sees nothing
    x = random(frames, dim, seed=1)
    zeroth, first = np.zeros((1, components)), np.zeros((1, components, dim))
    np.add.at(zeroth[0], which, 1.0)
    np.add.at(first[0], which, x)
    loading = T[which].reshape(frames * dim, rank)
    noise = np.eye(frames * dim)
    marginal = loading @ loading.T + noise
    gain = loading.T @ np.linalg.inv(marginal)
    found = posterior(T, Statistics(zeroth, first))
    np.testing.assert_allclose(found.mean[0], gain @ x.ravel(), atol=1e-12)
    np.testing.assert_allclose(found.covariance[0], np.eye(rank) - gain @ loading, atol=1e-12)

    def density(covariance: np.ndarray) -> float:
        normal = torch.distributions.MultivariateNormal(torch.zeros(len(covariance)).double(), torch.tensor(covariance))
        return float(normal.log_prob(torch.tensor(x.ravel())))

    assert found.log_likelihood[0] == pytest.approx(density(marginal) - density(noise), abs=1e-10)


@pytest.mark.parametrize("at_once", [1000, 7])
def test_em_raises_the_likelihood_at_every_step(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(total_variability, "AT_ONCE", at_once)
    statistics, _ = made(50, random(5, 3, 2))
    T = start(5, 3, 4, seed=0)
    totals = []
    for _ in range(30):
        T, total = step(T, statistics)
        totals.append(total)
    assert (np.diff(totals) > -1e-9).all() and totals[-1] > totals[0] + 10
    assert log_likelihood(T, statistics) >= totals[-1]


def test_at_the_end_the_likelihood_is_stationary() -> None:
    """Its gradient by finite differences vanishes where EM stands still: the M-step maximises what it should."""
    statistics, _ = made(60, 2 * random(2, 2, 1))
    T = start(2, 2, 1, seed=0)
    for _ in range(400):
        T, _ = step(T, statistics)
    for index in np.ndindex(T.shape):
        up, down = T.copy(), T.copy()
        up[index] += 1e-4
        down[index] -= 1e-4
        slope = (log_likelihood(up, statistics) - log_likelihood(down, statistics)) / 2e-4
        assert abs(slope) < 1e-3, (index, slope)


def test_the_subspace_and_what_lies_in_it_are_found_again() -> None:
    true = random(6, 4, 2)
    statistics, w = made(400, true, frames=200)
    T = start(6, 4, 2, seed=3)
    for _ in range(40):
        T, _ = step(T, statistics)
    basis = np.linalg.qr(T.reshape(24, 2))[0]
    inside = np.linalg.norm(basis.T @ np.linalg.qr(true.reshape(24, 2))[0], ord=-2)
    assert inside > 0.995  # cosine of the largest angle between the two
    mean = posterior(T, statistics).mean
    fitted = mean @ np.linalg.lstsq(mean, w, rcond=None)[0]
    assert 1 - ((w - fitted) ** 2).sum() / (w**2).sum() > 0.97


def test_components_that_see_nothing_stay_and_seeds_decide() -> None:
    statistics, _ = made(20, random(3, 2, 2))
    statistics.zeroth[:, 1] = 0.0
    statistics.first[:, 1] = 0.0
    T, _ = step(start(3, 2, 2, seed=1), statistics)
    assert np.isfinite(T).all()
    assert np.array_equal(start(3, 2, 2, seed=1), start(3, 2, 2, seed=1))
    assert not np.array_equal(start(3, 2, 2, seed=1), start(3, 2, 2, seed=2))


def test_a_step_is_what_the_sums_over_utterances_give() -> None:
    """The updated model's covariance between components, with every sum written out."""
    statistics, _ = made(9, random(3, 2, 2), frames=12)
    T = start(3, 2, 2, seed=5) * 8
    mean, covariance, _ = posterior(T, statistics)
    second = [covariance[u] + np.outer(mean[u], mean[u]) for u in range(9)]
    solved = np.zeros_like(T)
    for c in range(3):
        right = sum(statistics.zeroth[u, c] * second[u] for u in range(9))
        left = sum(np.outer(statistics.first[u, c], mean[u]) for u in range(9))
        solved[c] = left @ np.linalg.inv(right)
    prior = sum(second) / 9
    updated, total = step(T, statistics)
    loading, plain = updated.reshape(6, 2), solved.reshape(6, 2)
    np.testing.assert_allclose(loading @ loading.T, plain @ prior @ plain.T, rtol=1e-9)
    assert total == pytest.approx(log_likelihood(T, statistics))
