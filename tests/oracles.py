"""Figures of the authors' own programs (shared/oracles), how a computed array is compared with its summary, and finite
differences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
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


def gradient_is_that_of_differences(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], *, step: float, directions: int
) -> None:
    """Compare the gradient of a loss with central differences along random directions through all parameters."""
    gradients = torch.autograd.grad(loss(), list(parameters))
    for _ in range(directions):
        direction = [torch.randn_like(p) for p in parameters]
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(sign * step * d)
                values.append(float(loss()))
                for p, d in zip(parameters, direction, strict=True):
                    p.sub_(sign * step * d)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)
