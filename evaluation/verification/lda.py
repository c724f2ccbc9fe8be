"""Linear discriminant analysis of embeddings: the directions that tell the training speakers apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["project", "why_not"]

Array = NDArray[np.float64]


def why_not(dims: int, width: int, speakers: Sequence[str]) -> str | None:
    """Why embeddings of `width` values, spoken by `speakers`, have no projection on `dims` directions; None if they do.

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
    """Project embeddings on the `dims` directions with the largest variance between speakers per variance within.

    The mean of the training embeddings becomes the origin, and the variance within speakers the identity.

    Args:
        train: Embeddings (M, L) to find the directions with.
        speakers: Who speaks each of these.
        test: Embeddings (K, L) to project.
        dims: Directions; `why_not` tells whether there can be as many.

    Returns:
        The projections (K, dims), or None where the training embeddings span fewer directions.
    """
    import warnings

    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    analysis = LinearDiscriminantAnalysis(n_components=dims)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variables are collinear")  # told by the number of directions
        analysis.fit(train, list(speakers))
    projected = np.asarray(analysis.transform(test), dtype=np.float64)
    return projected if projected.shape[1] == dims else None
