"""Run folders of an earlier version are read, evaluated and resumed with the figures of then (`tests.golden.pin`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.comparing import differences
from tests.golden.pin import GOLDEN, OLD, of_old

PINNED = json.loads(GOLDEN.read_text())["old"]
TOLERANCE = {"dkf": 1e-4, "fhvae": 1e-4, "polyphonic": 1e-6, "strokes": 1e-6}
"""The first two are in float32: Adam magnifies rounding in six more steps."""


@pytest.mark.parametrize("name", OLD)
def test_an_old_run_evaluates_and_resumes_with_the_same_figures(name: str, tmp_path: Path) -> None:
    found = of_old(name, tmp_path)
    assert differences(found, PINNED[name], TOLERANCE[name]) == []
    assert {len(values) for values in found["resumed"].values()} == {6}
