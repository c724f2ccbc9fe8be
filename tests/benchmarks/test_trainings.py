"""benchmarks.trainings: every training of the list resolves; what was begun goes on, what is finished is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import trainings
from benchmarks.trainings import TRAININGS, Training, main, progress
from inference.settings.resolve import resolve

SMALL = ["model.bins=33", "model.z_dim=2", "model.z_x=[4]", "guide.x_z=[4]", "data.window=64", "data.hop=32"]


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)
def test_every_training_resolves(training: Training) -> None:
    settings = resolve(config_path=training.config, overrides=[*training.overrides, "data.corpus=folder"])
    assert settings.data.corpus == "folder" and settings.data.rate == 16000


def test_names_are_unique() -> None:
    assert len({training.name for training in TRAININGS}) == len(TRAININGS)


def test_a_list_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "valid"):
        (tmp_path / "corpus" / split / f"s{split}").mkdir(parents=True)
        samples = 0.1 * np.random.default_rng(0).standard_normal(16000)
        soundfile.write(tmp_path / "corpus" / split / f"s{split}" / "a.wav", samples, 16000)
    small = Training("small", "benchmark2021/vae", [*SMALL, "data.trim_db=null", "train.epochs=null", "train.steps=1"])
    monkeypatch.setattr(trainings, "TRAININGS", [small])
    given = ["--root", str(tmp_path / "corpus"), "--runs", str(tmp_path / "runs")]
    assert main(given) == 0
    run = tmp_path / "runs" / "small"
    assert progress(run)["state"] == "finished" and progress(run)["step"] == 1
    config = (run / "config.yaml").read_text(encoding="utf-8").replace("steps: 1\n", "steps: 3\n")
    (run / "config.yaml").write_text(config, encoding="utf-8")
    assert progress(run)["state"] == "begun"
    assert main(given) == 0 and main(given) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs" / "trainings.jsonl").read_text("utf-8").splitlines()]
    assert [("--resume" in line["command"], line["status"]) for line in lines] == [(False, 0), (True, 0)]
    assert main([*given, "--list"]) == 0
    assert "finished  step      3" in capsys.readouterr().out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "vea"]) == 2
    assert "vea" in capsys.readouterr().err
