"""Figures of the authors' own programs (shared/oracles), and how a computed array is compared with its summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

RTOL = 1e-10
"""Relative tolerance of a figure, as the FORMAT.md of each oracle has it."""


def figures(shared: Path, oracle: str, case: str) -> tuple[Path, Mapping[str, Any]]:
    """The folder of an oracle and one of its cases; skips the test where there is none."""
    folder = shared / "oracles" / oracle
    if not folder.is_dir():
        pytest.skip(f"no figures of the authors' code at {folder}")
    found: Mapping[str, Any] = json.loads((folder / "expected.json").read_text())[case]
    return folder, found


def agrees(got: Tensor | float, figure: Any, name: str) -> None:
    """Compare with a number, or with the summary of an array: relative to each value or the root mean square of all."""
    if not isinstance(figure, Mapping):
        number = float(got.detach()) if isinstance(got, Tensor) else got
        assert number == pytest.approx(figure, rel=RTOL), name
        return
    assert isinstance(got, Tensor) and list(got.shape) == figure["shape"], name
    flat = got.detach().double().flatten()
    size = max((figure["sum_of_squares"] / len(flat)) ** 0.5, 1e-12)
    assert float(flat.square().sum()) == pytest.approx(figure["sum_of_squares"], rel=2 * RTOL, abs=1e-20), name
    assert float(flat.sum()) == pytest.approx(figure["sum"], rel=RTOL, abs=RTOL * size * len(flat) ** 0.5), name
    for at, value in zip(figure["at"], figure["value"], strict=True):
        assert float(flat[at]) == pytest.approx(value, rel=RTOL, abs=RTOL * size), (name, at)
