"""Utterances of numbered frames, for tests of streams."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from corpora.types import Frames, Utterance

__all__ = ["give", "numbered"]


def give(frames: int) -> Frames:
    return Frames(np.full((frames, 1), frames, np.float32))


def numbered(lengths: Sequence[int]) -> list[Utterance]:
    """Utterances of so many frames, which say how many."""
    return [Utterance(str(n), "", functools.partial(give, length)) for n, length in enumerate(lengths)]
