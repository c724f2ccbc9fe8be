"""The benchmark of particles: what it reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.particles import main

SMALL = ["--frames", "4", "--particles", "6", "--bins", "9", "--timings", "1", "--repeats", "1"]
KEYS = "model frames sequences particles bins threads parameters".split()
KEYS += "parallel_s looped_s smc_parallel_s smc_looped_s ratio smc_ratio".split()


def test_report_has_its_keys_and_agrees_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "particles.json"
    assert main([*SMALL, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert list(report) == KEYS
    assert (report["model"], report["frames"], report["particles"], report["bins"]) == ("dkf", 4, 6, 9)
    assert report["ratio"] == pytest.approx(report["looped_s"] / report["parallel_s"])
    assert report["smc_ratio"] == pytest.approx(report["smc_looped_s"] / report["smc_parallel_s"])
    assert "times as fast" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dfk"], "Did you mean 'dkf'"),
        (["--particles", "0"], "--particles 0"),
        (["--model", "rvae", "model.causal=false"], "has no step"),
    ],
)
def test_mistakes_give_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
