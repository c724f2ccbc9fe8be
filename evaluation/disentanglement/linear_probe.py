r"""A linear probe: how much latents tell of a factor, to a multinomial logistic regression, and in bits

.. math:: I(y; z) \ge H(y) - E[-\log_2 q(y | z)]

(Barber & Agakov, 2003), q the probe on utterances that it was not fitted to, H the entropy of the classes' shares.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError
from evaluation.reporting.report import Summary, ratio

__all__ = ["FOLDS", "Probed", "entropy_bits", "probe"]

FOLDS = 4
LEAST = 1e-6
"""Probability of a class that a probe has not seen, and the least of any."""

Array = NDArray[np.float64]


class Probed(NamedTuple):
    """What a probe tells of a factor.

    Attributes:
        accuracy: share of segments that are named right, with its standard error over utterances.
        information_bits: the bound from below on the mutual information, likewise.
        chance: accuracy of the most frequent class.
        entropy_bits: H(y), the most that there is to tell.
        classes: how many.
        segments: how many were predicted.
    """

    accuracy: Summary
    information_bits: Summary
    chance: float
    entropy_bits: float
    classes: int
    segments: int


def entropy_bits(labels: Sequence[str]) -> float:
    """Entropy of the shares of the classes.

    Example:
        >>> entropy_bits(["a", "b", "a", "b"])
        1.0
    """
    shares = np.array(list(Counter(labels).values())) / len(labels)
    return float(-(shares * np.log2(shares)).sum())


def probe(latents: Array, labels: Sequence[str], utterances: Sequence[int], seed: int = 0) -> Probed:
    """Predict a factor from latents linearly, each utterance by a probe that is fitted to others.

    Args:
        latents: (K, L), one for each segment.
        labels: the factor's class, of each.
        utterances: which utterance each is of.
        seed: of the folds.

    Raises:
        UserError: there is one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y, group = np.asarray(labels), np.asarray(utterances)
    classes = np.unique(y)
    if len(classes) < 2:
        raise UserError(f"a probe needs two classes, got {len(classes)}: take a larger split.")
    right = np.zeros(len(y))
    log_q = np.zeros(len(y))
    for fit, predict in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(latents, y, group):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that could be better still tells this much
            model.fit(latents[fit], y[fit])
        q = np.full((len(predict), len(classes)), LEAST)
        q[:, np.searchsorted(classes, model.classes_)] = np.maximum(model.predict_proba(latents[predict]), LEAST)
        q /= q.sum(1, keepdims=True)
        right[predict] = classes[q.argmax(1)] == y[predict]
        log_q[predict] = np.log2(q[np.arange(len(predict)), np.searchsorted(classes, y[predict])])
    entropy = entropy_bits(labels)
    most = max(Counter(labels).values()) / len(labels)
    told = (_over(right, group), _over(entropy + log_q, group))
    return Probed(*told, chance=most, entropy_bits=entropy, classes=len(classes), segments=len(y))


def _over(values: Array, group: NDArray[np.integer[Any]]) -> Summary:
    """The mean over segments, and its standard error over utterances."""
    _, rows = np.unique(group, return_inverse=True)
    return ratio(list(zip(np.bincount(rows, values).tolist(), np.bincount(rows).tolist(), strict=True)))
