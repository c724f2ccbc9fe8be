"""The benchmark of FHVAE's table runs, and refuses what it cannot time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fhvae_table import main


def test_it_times_all_kinds_of_step(tmp_path: Path) -> None:
    sizes = ["--sequences", "6", "9", "--segments", "3", "--active", "2", "--steps", "1", "--exact-up-to", "6"]
    assert main([*sizes, "--json", str(tmp_path / "table.json")]) == 0
    first, second = json.loads((tmp_path / "table.json").read_text())
    assert set(first) == {"sequences", "plain_s", "sampled_s", "exact_s"} and "exact_s" not in second
    assert all(value > 0.0 for value in first.values())


def test_too_few_sequences_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sequences", "3"]) == 2
    assert "expected at least the 256 of a batch" in capsys.readouterr().err
