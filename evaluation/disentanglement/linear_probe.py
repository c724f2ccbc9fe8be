r"""Linear probes: the information that latents contain on a factor, by multinomial logistic regression.

.. math:: I(y; z) \ge H(y) - E[-\log_2 q(y | z)]

(Barber & Agakov, 2003) in bits, with q the probe on utterances that it was not fitted on, and H the entropy of the
class frequencies. A non-linear probe may give a larger bound; a bound of 0 or less shows no information.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dvae_pyro.errors import UserError
from evaluation.reporting.report import Summary, ratio

__all__ = ["FOLDS", "ProbeResult", "entropy_bits", "probe"]

FOLDS = 4
LEAST = 1e-6
"""Smallest probability of a class, also of one that is missing from the data that a probe is fitted on."""

Array = NDArray[np.float64]


class ProbeResult(NamedTuple):
    """The result of a probe.

    Attributes:
        accuracy: share of correctly classified segments, with its standard error over utterances.
        information_bits: lower bound on the mutual information, likewise.
        chance: frequency of the most frequent class.
        entropy_bits: H(y), an upper bound on the mutual information.
        classes: number of classes.
        segments: number of segments.
    """

    accuracy: Summary
    information_bits: Summary
    chance: float
    entropy_bits: float
    classes: int
    segments: int


def entropy_bits(labels: Sequence[str]) -> float:
    """Entropy of the class frequencies.

    Example:
        >>> entropy_bits(["a", "b", "a", "b"])
        1.0
    """
    shares = np.array(list(Counter(labels).values())) / len(labels)
    return float(-(shares * np.log2(shares)).sum())


def probe(latents: Array, labels: Sequence[str], utterances: Sequence[int], seed: int = 0) -> ProbeResult:
    """Predict a factor from latents by cross-validation, with folds of whole utterances.

    Args:
        latents: (K, L), one for each segment.
        labels: class of the factor of each segment.
        utterances: number of the utterance of each segment.
        seed: seed of the folds.

    Raises:
        UserError: there are fewer than two classes.
    """
    y, group = np.asarray(labels), np.asarray(utterances)
    classes = np.unique(y)
    if len(classes) < 2:
        raise UserError(f"a probe needs two classes, got {len(classes)}. Use a larger split.")
    correct = np.zeros(len(y))
    log_q = np.zeros(len(y))
    for fit, predict in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(latents, y, group):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # the bound also holds for a probe that has not converged
            model.fit(latents[fit], y[fit])
        q = np.full((len(predict), len(classes)), LEAST)
        q[:, np.searchsorted(classes, model.classes_)] = np.maximum(model.predict_proba(latents[predict]), LEAST)
        q /= q.sum(1, keepdims=True)
        correct[predict] = classes[q.argmax(1)] == y[predict]
        log_q[predict] = np.log2(q[np.arange(len(predict)), np.searchsorted(classes, y[predict])])
    entropy = entropy_bits(labels)
    most = max(Counter(labels).values()) / len(labels)
    figures = (_over(correct, group), _over(entropy + log_q, group))
    return ProbeResult(*figures, chance=most, entropy_bits=entropy, classes=len(classes), segments=len(y))


def _over(values: Array, group: NDArray[np.integer[Any]]) -> Summary:
    """The mean over segments, and its standard error over utterances."""
    _, rows = np.unique(group, return_inverse=True)
    return ratio(list(zip(np.bincount(rows, values).tolist(), np.bincount(rows).tolist(), strict=True)))
