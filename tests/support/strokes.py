"""Made-up pen strokes."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["drawings"]


def drawings(lengths: list[int], drawers: list[int]) -> dict[str, Any]:
    """Arrays of an archive of corpus 'strokes': integer random walks, every fifth point the last of a stroke."""
    walk = np.random.default_rng(0).integers(-3, 4, (sum(lengths), 2)).cumsum(0)
    lifted = (np.arange(sum(lengths)) % 5 == 4)[:, None]
    return {
        "points": np.concatenate([walk, lifted], axis=1).astype(np.float32),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "alphabet": np.zeros(len(lengths), np.int16),
        "alphabet_names": np.array(["Greek"]),
        "character": np.arange(1, len(lengths) + 1, dtype=np.int16),
        "drawer": np.array(drawers, np.int16),
    }
