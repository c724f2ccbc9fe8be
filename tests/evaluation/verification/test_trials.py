"""Error rates against thresholds tried one by one and known distributions; the bootstrap against what it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import norm

from dvae_pyro.errors import UserError
from evaluation.verification.trials import all_pairs, bootstrap_error, cosine_scores, equal_error_rate, error_rates


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def test_pairs_of_timit_and_of_the_small_test_set() -> None:
    core = all_pairs([f"s{i // 8}" for i in range(192)])
    assert len(core.target) == 18_336 and core.target.sum() == 24 * 28
    small = all_pairs([f"s{i // 10}" for i in range(40)])
    assert len(small.target) == 780 and small.target.sum() == 4 * 45
    assert (core.first < core.second).all() and len(set(zip(core.first, core.second, strict=True))) == 18_336
    for speakers in (["a", "a"], ["a", "b"], []):
        with pytest.raises(UserError, match=f"{len(speakers)} utterances"):
            all_pairs(speakers)


def test_cosines_are_those_of_each_pair() -> None:
    vectors = random(7, 3)
    trials = all_pairs(list("aabbccc"))
    scores = cosine_scores(vectors, trials)
    for i, j, score in zip(trials.first, trials.second, scores, strict=True):
        a, b = vectors[i], vectors[j]
        assert score == pytest.approx(float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
    vectors[4] = 0.0
    with pytest.raises(UserError, match=r"1 of 7 .*number 4"):
        cosine_scores(vectors, trials)


@pytest.mark.parametrize("ties", [False, True])
def test_rates_are_those_of_every_threshold(ties: bool) -> None:
    scores, target = random(60), random(60, seed=1) > 0
    scores = np.round(scores) if ties else scores
    rates = error_rates(scores, target)
    thresholds = [*sorted(set(scores.tolist())), math.inf]
    points = [((scores[~target] >= t).mean(), (scores[target] < t).mean()) for t in thresholds]
    # All thresholds up to the first that accepts no non-target, from the last that rejects no target on.
    first = max(k for k, (_, rejected) in enumerate(points) if rejected == 0)
    last = min(k for k, (accepted, _) in enumerate(points) if accepted == 0)
    expected = np.array([points[0], *points[first : last + 1]])
    np.testing.assert_allclose(np.stack(rates, axis=1), expected, atol=1e-15)


def test_the_highest_score_of_a_non_target_counts() -> None:
    """The line from (0, 1) goes through (1/2, 1): its crossing is that of the segment below, by hand."""
    scores, target = np.array([0.9, 0.8, 0.7, 0.1]), np.array([False, True, True, False])
    rates = error_rates(scores, target)
    assert list(zip(*(r.tolist() for r in rates), strict=True))[1:] == [(0.5, 0.0), (0.5, 0.5), (0.5, 1.0), (0.0, 1.0)]
    assert equal_error_rate(rates) == 0.5


def test_the_rate_is_where_the_line_through_all_points_crosses() -> None:
    """The smallest e with (e, e) on a segment of the line, found segment by segment."""
    for seed in range(20):
        scores, target = np.round(random(40, seed=seed), 1), random(40, seed=100 + seed) > 0
        rates = error_rates(scores, target)
        points = np.stack([rates.false_acceptance, rates.false_rejection], 1)
        crossings = []
        for (a0, r0), (a1, r1) in zip(points, points[1:], strict=False):
            steps = np.linspace(0.0, 1.0, 100_001)
            gap = (a0 + steps * (a1 - a0)) - (r0 + steps * (r1 - r0))
            crossings += (a0 + steps[np.abs(gap) < 1e-5] * (a1 - a0)).tolist()
        assert equal_error_rate(rates) == pytest.approx(np.mean(crossings), abs=1e-4)


def test_the_convex_hull_is_never_higher() -> None:
    scores, target = random(50), random(50, seed=3) > 0
    rates = error_rates(scores, target)
    k = len(rates.false_acceptance)
    solved = linprog(
        rates.false_acceptance,
        A_eq=np.stack([np.ones(k), rates.false_acceptance - rates.false_rejection]),
        b_eq=[1.0, 0.0],
    )
    assert solved.success and solved.fun <= equal_error_rate(rates) + 1e-12


def test_known_answers() -> None:
    yes, no = np.ones(5, dtype=bool), np.zeros(5, dtype=bool)
    both = np.concatenate([yes, no])
    apart = np.concatenate([np.arange(5.0) + 10, np.arange(5.0)])
    assert equal_error_rate(error_rates(apart, both)) == 0.0
    assert equal_error_rate(error_rates(-apart, both)) == 1.0
    assert equal_error_rate(error_rates(np.zeros(10), both)) == pytest.approx(0.5)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_two_gaussians(distance: float) -> None:
    """Scores N(0, 1) and N(d, 1) have EER Phi(-d/2); quantiles in place of draws leave no noise."""
    grid = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    scores = np.concatenate([norm.ppf((np.arange(5000) + 0.5) / 5000) + distance, grid])
    target = np.arange(25_000) < 5000
    assert equal_error_rate(error_rates(scores, target)) == pytest.approx(norm.cdf(-distance / 2), abs=2e-4)


def test_weights_count_pairs_again() -> None:
    scores, target = np.round(random(30), 1), random(30, seed=1) > 0
    times = np.arange(30) % 4
    weighted = error_rates(scores, target, times.astype(np.float64))
    repeated = error_rates(np.repeat(scores, times), np.repeat(target, times))
    assert equal_error_rate(weighted) == pytest.approx(equal_error_rate(repeated), abs=1e-12)


def test_the_bootstrap_tells_how_the_rate_scatters_over_sets_of_speakers() -> None:
    """Against the standard deviation over 60 sets of other speakers, within a factor of 1.6 either way."""
    rates, errors = [], []
    for seed in range(60):
        centres = np.repeat(random(12, 4, seed=seed), 5, axis=0)
        vectors = centres + 0.8 * random(60, 4, seed=1000 + seed)
        trials = all_pairs([f"{i // 5}" for i in range(60)])
        scores = cosine_scores(vectors, trials)
        rates.append(equal_error_rate(error_rates(scores, trials.target)))
        if seed < 8:
            error = bootstrap_error(scores, trials, replicates=100, seed=seed)
            assert error is not None
            errors.append(error)
    ratio = float(np.mean(errors) / np.std(rates, ddof=1))
    assert 1 / 1.6 < ratio < 1.6, ratio


def test_the_bootstrap_follows_its_seed_and_needs_three_speakers() -> None:
    vectors = random(30, 3)
    trials = all_pairs([f"{i // 5}" for i in range(30)])
    scores = cosine_scores(vectors, trials)
    first, again, other = (bootstrap_error(scores, trials, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    two = all_pairs(["a"] * 15 + ["b"] * 15)
    assert bootstrap_error(cosine_scores(vectors, two), two) is None


def test_a_replicate_is_the_trials_of_the_speakers_drawn() -> None:
    """With the lists of trials written out, a speaker drawn twice being two speakers that are not compared."""
    speakers = np.arange(20) // 4
    vectors = random(20, 2) + np.repeat(random(5, 2, seed=1), 4, axis=0)
    trials = all_pairs([str(s) for s in speakers])
    scores = cosine_scores(vectors, trials)
    table = dict(zip(zip(trials.first.tolist(), trials.second.tolist(), strict=True), scores.tolist(), strict=True))
    generator = torch.Generator().manual_seed(7)
    rates = []
    for _ in range(20):
        drawn = torch.randint(5, (5,), generator=generator).tolist()
        items = [(place, s, int(u)) for place, s in enumerate(drawn) for u in np.flatnonzero(speakers == s)]
        pairs = [(a, b) for i, a in enumerate(items) for b in items[i + 1 :] if (a[0] == b[0]) or a[1] != b[1]]
        values = np.array([table[min(a[2], b[2]), max(a[2], b[2])] for a, b in pairs])
        targets = np.array([a[0] == b[0] for a, b in pairs])
        if not targets.all():
            rates.append(equal_error_rate(error_rates(values, targets)))
    assert bootstrap_error(scores, trials, replicates=20, seed=7) == pytest.approx(np.std(rates, ddof=1), rel=1e-9)
