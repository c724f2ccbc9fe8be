"""Linear discriminant analysis (LDA) of embeddings: the directions that separate the training speakers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

__all__ = ["project", "why_not"]

Array = NDArray[np.float64]


def why_not(dims: int, width: int, speakers: Sequence[str]) -> str | None:
    """Why LDA cannot project embeddings of `width` dimensions to `dims` dimensions; None if it can.

    Args:
        dims: Directions to project on.
        width: Dimension of the embeddings.
        speakers: Speaker of each training embedding.

    Example:
        >>> why_not(24, 16, ["a", "a", "b", "b"])
        'LDA to 24 dimensions of embeddings that have 16'
        >>> why_not(12, 16, ["a", "a", "b", "b"])
        'LDA to 12 dimensions needs more than 12 training speakers, got 2'
    """
    count = len(set(speakers))
    if dims > width:
        return f"LDA to {dims} dimensions of embeddings that have {width}"
    if dims >= count:
        return f"LDA to {dims} dimensions needs more than {dims} training speakers, got {count}"
    if len(speakers) <= count:
        return f"LDA needs training speakers with several embeddings, got {len(speakers)} of {count} speakers"
    return None


def project(train: Array, speakers: Sequence[str], test: Array, dims: int) -> Array | None:
    """Project embeddings on the `dims` directions with the largest ratio of variances between and within speakers.

    The projections are centred at the training mean, and their covariance within speakers is the identity.

    Args:
        train: Embeddings (M, L) that LDA is fitted on.
        speakers: Speaker of each of these.
        test: Embeddings (K, L) to project.
        dims: Number of directions; see `why_not`.

    Returns:
        The projections (K, dims), or None where the training embeddings span fewer directions.
    """
    analysis = LinearDiscriminantAnalysis(n_components=dims)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variables are collinear")  # checked below, by the number of directions
        analysis.fit(train, list(speakers))
    projected = np.asarray(analysis.transform(test), dtype=np.float64)
    return projected if projected.shape[1] == dims else None
