"""The benchmark of growth measures every size, says how it grows, and refuses what it cannot measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth
from benchmarks.growth import main, slope

SMALL = ["model.z_dim=2", "model.z_x=[4]", "guide.g_dim=4", "guide.x_g=[4]"]


def test_every_size_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    sizes = ["--frames", "3", "6", "--sequences", "2", "--particles", "--base", "4", "2", "1", "--steps", "1"]
    where = ["--json", str(tmp_path / "growth.json"), "--picture", str(tmp_path / "growth.png")]
    assert main(["--model", "dkf", *sizes, *where, "--bins", "5", "--threads", "1", *SMALL]) == 0
    report = json.loads((tmp_path / "growth.json").read_text())
    assert set(report["axes"]) == {"frames", "sequences"} and report["base"]["frames"] == 4
    assert [point["size"] for point in report["axes"]["frames"]["points"]] == [3, 6]
    assert all(p["seconds"] > 0 and p["peak_mib"] > 50 for axis in report["axes"].values() for p in axis["points"])
    assert report["axes"]["sequences"]["slope"] is None, "one size has none"
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_slope_is_the_power_of_growth(power: float) -> None:
    assert slope([{"size": n, "seconds": 0.2 * n**power} for n in (2, 8, 32)]) == pytest.approx(power, abs=1e-9)


def test_the_sizes_that_stay_are_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, int]] = []

    def measured(model: str, overrides: list[str], sizes: dict[str, int], args: Any) -> dict[str, float]:
        asked.append(sizes)
        return {"seconds": 1.0, "peak_mib": 1.0}

    monkeypatch.setattr(growth, "_apart", measured)
    sizes = ["--frames", "7", "--sequences", "9", "--particles", "5", "--base", "4", "3", "2"]
    assert main(["--model", "dkf", *sizes]) == 0
    assert asked == [
        {"frames": 7, "sequences": 3, "particles": 2, "table": 0},
        {"frames": 4, "sequences": 9, "particles": 2, "table": 0},
        {"frames": 4, "sequences": 3, "particles": 5, "table": 0},
    ]


def test_the_table_of_an_fhvae_is_measured_by_its_utterances(tmp_path: Path) -> None:
    sizes = ["--sequences", "--particles", "--table", "6", "9", "--base", "20", "3", "1", "--steps", "1", "--bins", "5"]
    settings = ["model.h_dim=4", "guide.h_dim=4", "model.z_dim=2"]
    where = ["--json", str(tmp_path / "growth.json")]
    assert main(["--model", "fhvae", *sizes, *where, *settings, "train.discriminative.sequences=2"]) == 0
    axes = json.loads((tmp_path / "growth.json").read_text())["axes"]
    assert set(axes) == {"table"} and [point["size"] for point in axes["table"]["points"]] == [6, 9]


@pytest.mark.parametrize(("model", "axis", "why"), [("dkf", "table", "no table"), ("fhvae", "frames", "one length")])
def test_an_axis_that_a_model_does_not_have_is_refused(
    model: str, axis: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", model, f"--{axis}", "3"]) == 2
    assert why in capsys.readouterr().err


def test_a_recorded_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "dkf", "--frames", "3", "--steps", "1", "train.cuda_graph=true"]) == 2
    assert "benchmarks.gpu" in capsys.readouterr().err


def test_sizes_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "dkf", "--frames", "0"]) == 2
    assert "--frames 0" in capsys.readouterr().err
