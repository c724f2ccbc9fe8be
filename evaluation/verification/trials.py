r"""Verification trials: pairs of utterances, their scores, and error rates.

A trial is a pair of utterances, a *target* if one speaker utters both. It is accepted if its score reaches a threshold
:math:`\theta`. Over all trials

.. math:: \mathrm{FRR}(\theta) = P(s < \theta \mid \text{target}), \qquad
          \mathrm{FAR}(\theta) = P(s \ge \theta \mid \text{not target}).

The points (FAR, FRR) at all distinct scores, from accepting no trial to accepting all, are joined by straight lines;
the **equal error rate** is where this line crosses FAR = FRR. (A point on a segment is the error of randomising between
its ends. The convex hull, which some programs use, gives an equal or lower rate.)

All pairs of the utterances of a split are trials, as in Hsu, Zhang & Glass (2017), appendix F: 192 utterances of TIMIT
give 192 * 191 / 2 = 18,336.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import det_curve

from dvae_pyro.errors import UserError

__all__ = ["Rates", "Trials", "all_pairs", "bootstrap_error", "cosine_scores", "equal_error_rate", "error_rates"]

REPLICATES = 200

Array = NDArray[np.float64]


class Trials(NamedTuple):
    """Pairs of utterances.

    Attributes:
        first: Number of the first utterance of each pair (P,).
        second: Number of the second (P,).
        target: Whether one speaker utters both (P,).
        speaker: Number of the speaker of each utterance (M,).
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    target: NDArray[np.bool_]
    speaker: NDArray[np.intp]


class Rates(NamedTuple):
    """Error rates (K,) at thresholds in increasing order, from accepting all trials on."""

    false_acceptance: Array
    false_rejection: Array


def all_pairs(speakers: Sequence[str]) -> Trials:
    """All pairs of utterances, each once.

    Args:
        speakers: Speaker of each utterance.

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
            "Give another --split or --corpus; in corpus 'folder' without folders of speakers each file is a speaker."
        )
    return Trials(first, second, target, numbers)


def cosine_scores(vectors: Array, trials: Trials) -> Array:
    """Cosine similarity (P,) of the vectors (M, L) of each pair.

    Raises:
        UserError: A vector is zero or not finite.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(vectors)} embeddings are zero or not finite, the first of utterance number {bad[0]}, "
            "and have no cosine.\nTrain longer, or inspect the latents of this run."
        )
    unit = vectors / length
    cosines: Array = (unit @ unit.T)[trials.first, trials.second]
    return cosines


def error_rates(scores: Array, target: NDArray[np.bool_], weights: Array | None = None) -> Rates:
    """False acceptance and false rejection at the distinct scores between which one of the two changes.

    Args:
        scores: Score of each pair (P,).
        target: Whether each pair is a target (P,).
        weights: Weight of each pair (P,); None is 1.

    Example:
        >>> rates = error_rates(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True]))
        >>> rates.false_acceptance.tolist(), rates.false_rejection.tolist()
        ([1.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.5, 0.5])
        >>> equal_error_rate(rates)
        0.5
    """
    false_acceptance, false_rejection, _ = det_curve(target, scores, sample_weight=weights)
    # det_curve begins at the highest threshold without false rejection: add the threshold that accepts all trials.
    return Rates(np.concatenate([[1.0], false_acceptance]), np.concatenate([[0.0], false_rejection]))


def equal_error_rate(rates: Rates) -> float:
    """The rate at which the line through the points (FAR, FRR) crosses FAR = FRR."""
    gap = rates.false_acceptance - rates.false_rejection
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    low, high = rates.false_acceptance[after - 1], rates.false_acceptance[after]
    return float(low + share * (high - low))


def bootstrap_error(scores: Array, trials: Trials, *, replicates: int = REPLICATES, seed: int = 0) -> float | None:
    """Standard error of the equal error rate by the bootstrap over speakers.

    Trials share utterances and speakers and are not independent, so speakers are resampled with replacement. A speaker
    drawn k times has its target trials k times, and its trials against a speaker drawn l times k * l times; trials of a
    speaker against its own copy are left out. Replicates without targets or without non-targets do not count.

    Args:
        scores: Score of each pair (P,).
        trials: The pairs.
        replicates: Number of replicates.
        seed: Seed of the resampling.

    Returns:
        The standard deviation over replicates; None for fewer than three speakers.
    """
    one, other = trials.speaker[trials.first], trials.speaker[trials.second]
    count = int(trials.speaker.max()) + 1
    if count < 3:
        return None
    generator = torch.Generator().manual_seed(seed)
    rates = []
    for _ in range(replicates):
        drawn = np.bincount(torch.randint(count, (count,), generator=generator).numpy(), minlength=count)
        times = drawn.astype(np.float64)
        weights = np.where(trials.target, times[one], times[one] * times[other])
        if weights[trials.target].sum() > 0 and weights[~trials.target].sum() > 0:
            rates.append(equal_error_rate(error_rates(scores, trials.target, weights)))
    return float(np.std(rates, ddof=1)) if len(rates) > 1 else None
