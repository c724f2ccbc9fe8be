r"""Verification trials: which utterances are compared, how alike they are, and how often that misleads.

A trial is a pair of utterances and asks whether one person speaks both (a *target*). It is accepted if the score of the
pair reaches a threshold :math:`\theta`. Over all trials

.. math:: \mathrm{FRR}(\theta) = P(s < \theta \mid \text{target}), \qquad
          \mathrm{FAR}(\theta) = P(s \ge \theta \mid \text{not target}).

The **equal error rate** is where the two meet: as the threshold rises from below the lowest score to above the highest,
the points (FAR, FRR) at all distinct scores, ties taken together, are joined by straight lines, and the EER is where
this
line crosses FAR = FRR. (The line between two points is what deciding by lot between them gives. The convex hull, which
some programs take, may give a lower figure, never a higher one.)

All pairs of the utterances of a split are trials, as in Hsu, Zhang & Glass (2017), appendix F: 192 utterances of TIMIT
give
192 * 191 / 2 = 18,336.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError

__all__ = [
    "Embedded",
    "Rates",
    "Trials",
    "all_pairs",
    "bootstrap_error",
    "cosine_scores",
    "equal_error_rate",
    "error_rates",
]

REPLICATES = 200

Array = NDArray[np.float64]


class Embedded(NamedTuple):
    """Utterances, or parts of them, as vectors.

    Attributes:
        vectors: By the name of each kind of vector, one for each item: (M, L).
        files: Which utterance each item is, or is a part of.
        speakers: Who speaks each.
    """

    vectors: Mapping[str, Array]
    files: Sequence[str]
    speakers: Sequence[str]


class Trials(NamedTuple):
    """Pairs (P,) of utterances by number, whether one person speaks both, and the number of each one's speaker (M,)."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    target: NDArray[np.bool_]
    speaker: NDArray[np.intp]


class Rates(NamedTuple):
    """Error rates (K + 1,) at K + 1 thresholds, from accepting every trial to accepting none."""

    false_acceptance: Array
    false_rejection: Array


def all_pairs(speakers: Sequence[str]) -> Trials:
    """All pairs of utterances, each once, given who speaks each.

    Raises:
        UserError: No two utterances have the same speaker, or all have.

    Example:
        >>> trials = all_pairs(["a", "a", "b"])
        >>> list(zip(trials.first.tolist(), trials.second.tolist(), trials.target.tolist()))
        [(0, 1, True), (0, 2, False), (1, 2, False)]
    """
    names, numbers = np.unique(np.asarray(speakers, dtype=object).astype(str), return_inverse=True)
    first, second = np.triu_indices(len(speakers), k=1)
    target = numbers[first] == numbers[second]
    if not target.any() or target.all():
        raise UserError(
            f"{len(speakers)} utterances of {len(names)} speaker(s) make no trials: verification needs two speakers, "
            "and two utterances of one of them.\n"
            "Take another --split or --corpus; without folders of speakers each file of corpus 'folder' is a speaker."
        )
    return Trials(first, second, target, numbers)


def cosine_scores(vectors: Array, trials: Trials) -> Array:
    """Cosine of the angle between the vectors (M, L) of each pair (P,).

    Raises:
        UserError: A vector is zero or not finite, so that it has no direction.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(vectors)} embeddings are zero or not finite, the first of utterance number {bad[0]}: "
            "they have no direction to compare.\nTrain longer, or look at the latents of this run."
        )
    unit = vectors / length
    cosines: Array = (unit @ unit.T)[trials.first, trials.second]
    return cosines


def error_rates(scores: Array, target: NDArray[np.bool_], weights: Array | None = None) -> Rates:
    """False acceptance and false rejection at every distinct score.

    Args:
        scores: How alike each pair is (P,).
        target: Which pairs are targets (P,).
        weights: How often each pair counts (P,); once if not given.

    Example:
        >>> rates = error_rates(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True]))
        >>> rates.false_acceptance.tolist(), rates.false_rejection.tolist()
        ([1.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 1.0])
        >>> equal_error_rate(rates)
        0.5
    """
    order = np.argsort(scores, kind="stable")
    return _rates(target[order], _ends(scores[order]), None if weights is None else weights[order])


def equal_error_rate(rates: Rates) -> float:
    """Where the line through the points (FAR, FRR) crosses FAR = FRR."""
    gap = rates.false_acceptance - rates.false_rejection
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    low, high = rates.false_acceptance[after - 1], rates.false_acceptance[after]
    return float(low + share * (high - low))


def bootstrap_error(scores: Array, trials: Trials, *, replicates: int = REPLICATES, seed: int = 0) -> float | None:
    """Standard error of the equal error rate by the bootstrap over speakers.

    Trials share utterances and speakers and are far from independent; what is drawn anew, with replacement, is
    therefore who the speakers are. A speaker drawn k times has its target trials k times, and its trials against a
    speaker drawn l times k * l times; trials of a speaker against its own copy are left out. Replicates without targets
    or without non-targets are not counted.

    Args:
        scores: How alike each pair is (P,).
        trials: The pairs.
        replicates: How often to draw.
        seed: Of the draws.

    Returns:
        The standard deviation over replicates; None of fewer than three speakers, who can be drawn in one way only.
    """
    import torch

    order = np.argsort(scores, kind="stable")
    target, ends = trials.target[order], _ends(scores[order])
    one, other = trials.speaker[trials.first][order], trials.speaker[trials.second][order]
    count = int(trials.speaker.max()) + 1
    if count < 3:
        return None
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(replicates):
        drawn = np.bincount(torch.randint(count, (count,), generator=generator).numpy(), minlength=count)
        times = drawn.astype(np.float64)
        weights = np.where(target, times[one], times[one] * times[other])
        if weights[target].sum() > 0 and weights[~target].sum() > 0:
            found.append(equal_error_rate(_rates(target, ends, weights)))
    return float(np.std(found, ddof=1)) if len(found) > 1 else None


def _ends(ordered: Array) -> NDArray[np.intp]:
    """Where each run of equal scores ends (exclusive), the scores being in order."""
    return np.append(np.flatnonzero(np.diff(ordered)) + 1, len(ordered))


def _rates(target: NDArray[np.bool_], ends: NDArray[np.intp], weights: Array | None) -> Rates:
    """Error rates of trials in the order of their scores."""
    counted = np.ones(len(target)) if weights is None else weights
    rejected = np.cumsum(np.where(target, counted, 0.0))
    refused = np.cumsum(np.where(target, 0.0, counted))
    points = np.concatenate([[0.0], rejected[ends - 1]]), np.concatenate([[0.0], refused[ends - 1]])
    return Rates(1.0 - points[1] / refused[-1], points[0] / rejected[-1])
