"""Missing frames: which they are, how far a fill is off, and the command on a small KVAE."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from corpora.recipes import bouncing_ball
from evaluation.imputation.__main__ import main
from evaluation.imputation.filling import error, fill, linear_r2, masks
from inference.runs import create, load_run, write_run
from inference.settings.resolve import resolve
from models.kvae import KVAE

SMALL = ["model.a_x=[8]", "guide.x_a=[8]", "model.alpha=4", "model.a_dim=2", "model.z_dim=3"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bouncing_ball, "SIZES", {"train": 2, "valid": 2, "test": 6})
    settings = resolve("kvae", overrides=["data.corpus=bouncing_ball", *SMALL])
    write_run(tmp_path / "run", settings, *create(settings))
    return tmp_path / "run"


def test_masks_leave_out_what_they_say() -> None:
    present = masks(20, 400, 0.8, 4, seed=0)
    assert all(bool(of[:4].all()) for of in present.values())
    assert abs(float(present["random"][4:-1].float().mean()) - 0.2) < 0.02
    assert (~present["block"]).sum(0).unique().tolist() == [10] and bool(present["block"][-1].all())
    assert not present["prefix"][4:].any()


def test_where_all_frames_are_there_nothing_changes(run: Path) -> None:
    model = load_run(run).model
    assert isinstance(model, KVAE)
    a = torch.randn(7, 3, 2)
    filled = fill(model, a, torch.ones(7, 3, dtype=torch.bool))
    with torch.no_grad():
        torch.testing.assert_close(filled.smoothed, model.decoder(a).mean)
        torch.testing.assert_close(filled.interpolated, model.decoder(a).mean)


def test_error_is_of_the_missing_frames_alone() -> None:
    true = torch.zeros(3, 1, 2)
    found = torch.tensor([[[9.0, 9.0]], [[1.0, 3.0]], [[9.0, 9.0]]])
    assert error(found, true, torch.tensor([[False], [True], [False]])).tolist() == [5.0]


def test_r2_is_one_for_a_linear_map_and_about_zero_for_noise() -> None:
    random = np.random.default_rng(0)
    z = random.standard_normal((40, 5, 3))
    linear = z @ random.standard_normal((3, 2)) + 1.0
    noise = random.standard_normal((40, 5, 1))
    r2 = linear_r2(z, np.concatenate([linear, noise], axis=-1))
    np.testing.assert_allclose(r2[:2], 1.0)
    assert abs(r2[2]) < 0.3


def test_the_command_leaves_a_report_and_a_picture(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--picture", str(tmp_path / "a.png")]) == 0
    report = json.loads((run / "imputation.json").read_text(encoding="utf-8"))
    assert report["num_sequences"] == 6 and set(report["r2"]) == {"x", "y", "v_x", "v_y"}
    assert set(report["metrics"]) == {
        f"{m}_{how}" for m in masks(9, 1, 0.5, 1, 0) for how in ("smoothed", "interpolated")
    }
    assert all(0.0 < figure["mean"] < 1.0 for figure in report["metrics"].values())
    assert (tmp_path / "a.png").stat().st_size > 3000


def test_other_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve("vae", overrides=["model.bins=33", "data.window=64", "data.hop=32"])
    write_run(tmp_path / "run", settings, *create(settings))
    assert main([str(tmp_path / "run")]) == 2
    assert "kvae2017/bouncing_ball" in capsys.readouterr().err
