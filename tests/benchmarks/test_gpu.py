"""The benchmark of recorded steps: that its report agrees with itself, and that it says where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import FORMS, main

SMALL = ["--frames", "3", "--sequences", "2", "--bins", "5", "--steps", "1", "--threads", "1"]


def test_the_report_agrees_with_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.COPY", {"cpu": 2**16})
    monkeypatch.setattr("benchmarks.gpu.PRODUCT", {"cpu": 64})
    file = tmp_path / "gpu.json"
    assert main(["--models", "vae,storn", "--device", "cpu", *SMALL, "--json", str(file), "model.z_dim=2"]) == 0
    report = json.loads(file.read_text())
    assert list(report["models"]) == ["vae", "storn"] and report["device"] == "cpu"
    for found in report["models"].values():
        assert all(found[f"{form}_s"] > 0 for form in FORMS)
        arithmetic = 6 * found["parameters"] * 3 * 2 / report["operations_per_second"]
        traffic = 4 * (2 * 3 * 2 * 5 + 8 * found["parameters"]) / report["bytes_per_second"]
        assert found["floor_s"] == pytest.approx(max(arithmetic, traffic))
        assert found["over_floor"] == pytest.approx(found["captured_s"] / found["floor_s"])
        assert found["times_stepwise"] == pytest.approx(found["stepwise_s"] / found["captured_s"])
        assert found["bound"] != found["bound_bf16"] == pytest.approx(found["bound"], rel=0.02)
    assert "20 times" not in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 2
    assert "PyTorch" in capsys.readouterr().err


def test_mistakes_give_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--frames", "0"]) == 2
    assert capsys.readouterr().err == "error: --frames 0: expected at least 1.\n"
