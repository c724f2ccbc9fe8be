"""The Frechet distance against closed forms, another formula, brute force, and the truth behind samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dvae_pyro.errors import UserError
from evaluation.frechet.distances import frechet_distance, measured

Matrix = NDArray[np.float64]


def gaussian(seed: int, n: int, d: int, spread: float = 1.0) -> Matrix:
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(d, d)) + 2.0 * np.eye(d)
    return np.asarray(generator.normal(size=(n, d)) @ mixing * spread + generator.normal(size=d))


def whitened(sample: Matrix, mean: Matrix, root: Matrix) -> Matrix:
    """The sample moved so that its mean and covariance are exactly these."""
    centred = sample - sample.mean(0)
    inverse = np.linalg.inv(np.linalg.cholesky(np.cov(centred.T)))
    return np.asarray(centred @ inverse.T @ root.T + mean)


def test_gaussians_whose_covariances_commute() -> None:
    """Axes in common: the sum of squared differences of means and of standard deviations."""
    d = 4
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))
    means = np.array([[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 0.0, 5.0]])
    deviations = np.array([[1.0, 2.0, 3.0, 0.5], [2.0, 0.1, 3.0, 4.0]])
    sets = [whitened(gaussian(i, 50, d), means[i], axes @ np.diag(deviations[i])) for i in (0, 1)]
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-10)


def test_the_root_of_the_product_where_it_exists() -> None:
    from scipy.linalg import sqrtm

    a, b = gaussian(1, 200, 6), gaussian(2, 150, 6, 0.3)
    ca, cb = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2.0 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_features_are_the_limit_of_regular_covariances() -> None:
    """What the product formula tends to as noise that makes the covariances regular goes to nothing."""
    a, b = gaussian(3, 4, 9), gaussian(4, 6, 9)
    ca, cb = np.cov(a.T), np.cov(b.T)
    found = frechet_distance(a, b)
    for tiny in (1e-6, 1e-10):
        values, vectors = np.linalg.eigh(ca + tiny * np.eye(9))
        root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
        middle = np.linalg.eigvalsh(root @ (cb + tiny * np.eye(9)) @ root)
        trace = np.sqrt(np.maximum(middle, 0.0)).sum()
        expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca) + np.trace(cb) - 2.0 * trace
        assert found == pytest.approx(expected, abs=20.0 * np.sqrt(tiny))


def test_a_set_is_nowhere_but_where_it_is() -> None:
    for n in (3, 40):
        a, b = gaussian(5, n, 8), gaussian(6, n, 8)
        scale = np.trace(np.cov(a.T))
        assert abs(frechet_distance(a, a[::-1])) < 1e-10 * scale
        assert frechet_distance(a, a + 2.0) == pytest.approx(32.0, rel=1e-9)
        assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_error_and_bias_are_those_of_repeated_sampling() -> None:
    """Two standard normals in 5 dimensions: the true distance is 0, and all that is found is bias."""
    generator = np.random.default_rng(7)
    runs = [[generator.normal(size=(200, 5)) + shift for shift in (0.0, 0.5)] for _ in range(150)]
    values = np.array([frechet_distance(*pair) for pair in runs])
    found = [measured(pair[0], pair[1], resamples=30) for pair in runs[:25]]
    spread, bias = values.std(ddof=1), values.mean() - 5 * 0.25
    assert np.mean([d.stderr for d in found]) == pytest.approx(spread, rel=0.25)
    assert np.mean([d.bias for d in found]) == pytest.approx(bias, rel=0.35)


def test_the_seed_decides_and_three_samples_have_no_halves() -> None:
    a, b = gaussian(8, 30, 3), gaussian(9, 30, 3)
    assert measured(a, b, 5, seed=1) == measured(a, b, 5, seed=1)
    assert measured(a, b, 5, seed=1).stderr != measured(a, b, 5, seed=2).stderr
    assert np.isnan(measured(a[:3], b, 5).bias)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), r"\(3, 2\).*\(3, 4\)"),
        (np.zeros((1, 2)), np.zeros((3, 2)), r"\(1, 2\).*\(3, 2\)"),
        (np.zeros((3, 2)), np.array([[np.nan, 0.0], [1.0, 1.0]]), "1 of 2 "),
    ],
)
def test_what_has_no_distance_is_refused(a: Matrix, b: Matrix, message: str) -> None:
    with pytest.raises(UserError, match=message):
        frechet_distance(a, b)
