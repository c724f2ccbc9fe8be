"""Validation bounds of repeated runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.curves import curves, main, picture
from inference.settings.resolve import resolve, save_settings


def _run(folder: Path, bounds: Sequence[float]) -> Path:
    folder.mkdir()
    save_settings(resolve("vae", overrides=["train.objective=analytic"]), folder / "config.yaml")
    lines = [{"split": "valid", "step": 7 * n, "epoch": n, "elbo": bound} for n, bound in enumerate(bounds, start=1)]
    lines.insert(0, {"split": "train", "step": 1, "epoch": 1, "elbo": 99.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_seeds_of_a_setting_are_one_row_and_one_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        _run(tmp_path / "plateau", [1.0, 3.0, 2.0]),
        _run(tmp_path / "plateau-seed1", [1.0, 2.0, 5.0]),
        _run(tmp_path / "constant", [0.5, 0.25]),
    ]
    assert main([*map(str, runs), "--picture", str(tmp_path / "curves.png")]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2] == "| plateau | 2 | 4.0 | 3.0 to 5.0 | 2, 3 | 3.5 |"
    assert rows[3] == "| constant | 1 | 0.5 | 0.5 to 0.5 | 1 | 0.2 |"
    assert (tmp_path / "curves.png").stat().st_size > 0
    first, second, third = (line.get_color() for line in picture(curves(runs)).axes[0].lines[::2])  # without the dots
    assert first == second != third


def test_a_run_without_a_validation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(_run(tmp_path / "young", []))]) == 2
    assert "young has no validation" in capsys.readouterr().err
