"""Comparing what was computed with what was pinned: all differences at once, each by its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

__all__ = ["differences"]


def differences(found: Any, pinned: Any, rel: float, place: str = "") -> list[str]:
    """Where two nested results differ by more than `rel`, relative to the pinned value (absolutely below 0.1)."""
    return list(_differences(found, pinned, rel, place))


def _differences(found: Any, pinned: Any, rel: float, place: str) -> Iterator[str]:
    if isinstance(pinned, Mapping) and isinstance(found, Mapping) and found.keys() == pinned.keys():
        for key in pinned:
            yield from _differences(found[key], pinned[key], rel, f"{place}.{key}")
    elif isinstance(pinned, list) and isinstance(found, list) and len(found) == len(pinned):
        for index, (one, other) in enumerate(zip(found, pinned, strict=True)):
            yield from _differences(one, other, rel, f"{place}[{index}]")
    elif isinstance(pinned, float) and isinstance(found, float):
        if found != pytest.approx(pinned, rel=rel, abs=rel / 10, nan_ok=True):
            yield f"{place}: computed {found!r}, pinned {pinned!r}"
    elif found != pinned:
        yield f"{place}: computed {found!r}, pinned {pinned!r}"
