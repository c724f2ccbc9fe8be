"""What evaluation.generate leaves in a folder, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.frontends import registry as frontends
from evaluation.generate.__main__ import main
from inference.prediction.generation import generate
from inference.runs import Run
from tests.sounds import RATE
from tests.support.runs import SMALL_SPECTRA, saved_run


def made_run(path: Path, *overrides: str) -> Run:
    fit = torch.rand(20, 65, dtype=torch.float64).round()
    return saved_run(path, "vrnn", *SMALL_SPECTRA, "model.h_dim=4", *overrides, fit=fit)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path / "run")


def generated(run: Run, *arguments: object) -> int:
    return main([str(run.path), *map(str, arguments)])


def report_in(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "generate.json").read_text())
    return report


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sounds_a_picture_and_a_list(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    out, copy = tmp_path / "new" / "out", tmp_path / "copy.json"
    assert generated(run, "--sequences", 3, "--seconds", 0.1, "--chunk", 2, "--out", out, "--json", copy) == 0
    assert names_in(out) == ["0000.wav", "0001.wav", "0002.wav", "generate.json", "generated.png"]
    assert names_in(out.parent) == ["out"]
    assert "3 sequences of 26 frames (0.1 s), x mean" in capsys.readouterr().out
    report = report_in(out)
    assert report == json.loads(copy.read_text())
    what = {key: report[key] for key in ("model", "num", "frames", "seconds", "rate", "x", "seed", "not_finite")}
    assert list(what.values()) == ["vrnn", 3, 26, 0.1, RATE, "mean", 0, []]
    for file in report["files"]:
        samples, rate = soundfile.read(out / file["file"])
        assert rate == RATE and samples.shape == (25 * 64,)  # of 0.1 s, 1600 samples, all
        assert float(np.abs(samples).max()) == pytest.approx(min(1.0, file["peak"]), abs=2e-4)


def test_arrays_hold_what_the_model_generates(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generated(run, "--sequences", 5, "--frames", 4, "--chunk", 2, "--no-audio", "--out", out, "seed=3") == 0
    assert names_in(out) == ["frames.npy", "generate.json", "generated.png"]
    expected, _ = generate(run.model, 5, 4, seed=3)
    np.testing.assert_allclose(np.load(out / "frames.npy"), expected.transpose(0, 1).numpy(), rtol=1e-6)


def pieces(settings: object, bins: int) -> object:
    """A front end that leads back to no sound."""
    return object()


def test_data_that_are_no_sounds_are_sampled_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(frontends.FRONT_ENDS, "pieces", f"{__name__}:pieces")
    overrides = ["data.frontend=pieces", "model.likelihood=bernoulli", "model.input=raw"]
    run = made_run(tmp_path / "run", *overrides)
    assert generated(run, "--sequences", 2, "--seconds", 1) == 2
    assert "--frames T" in capsys.readouterr().err
    assert generated(run, "--sequences", 2, "--frames", 9) == 0
    out = run.path / "generated"
    assert names_in(out) == ["frames.npy", "generate.json", "generated.png"]
    assert set(np.load(out / "frames.npy").ravel().tolist()) == {0.0, 1.0}
    assert report_in(out)["x"] == "sample" and report_in(out)["files"] is None


def test_a_folder_with_something_in_it_is_left_as_it_is(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert generated(run, "--sequences", 1, "--frames", 3, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert generated(run, "--sequences", 2, "--frames", 3, "--out", out) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_whatever_fails_leaves_nothing_behind(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluation.generate import command

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "save_picture", interrupted)
    here = names_in(tmp_path)
    assert generated(run, "--sequences", 2, "--frames", 3, "--out", tmp_path / "out") == 130
    assert names_in(tmp_path) == here


@pytest.mark.parametrize("audio", [True, False])
def test_sequences_that_run_away_are_named_and_left_out(
    run: Run, audio: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evaluation.generate import command

    def sampled(*arguments: object) -> list[torch.Tensor]:
        power = torch.ones(4, 5, 65)
        power[1, 3, 7], power[2, 0, 0] = float("nan"), float("inf")
        return [power[:2], power[2:]]

    monkeypatch.setattr(command, "sampled", sampled)
    out = tmp_path / "out"
    assert generated(run, "--sequences", 4, "--frames", 5, "--out", out, *([] if audio else ["--no-audio"])) == 0
    assert report_in(out)["not_finite"] == [1, 2]
    assert "2 of 4 sequences diverged" in capsys.readouterr().err
    if audio:
        assert [name for name in names_in(out) if name.endswith(".wav")] == ["0000.wav", "0003.wav"]
    else:
        assert np.isfinite(np.load(out / "frames.npy")).all(axis=(1, 2)).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequences", "0"], "--sequences 0"),
        (["--seconds", "0.001"], "one hop"),
        (["--frames", "9", "--seconds", "1"], "one of them"),
        (["--frames", "1"], "--frames 1"),
        (["--out", "{run}"], "not an empty folder"),
        (["model.z_dim=x"], "z_dim"),
    ],
)
def test_mistakes_get_one_message(
    run: Run, arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names_in(run.path)
    assert generated(run, *(argument.format(run=run.path) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.splitlines()[-1].count("Traceback") == 0
    assert names_in(run.path) == before


@pytest.mark.parametrize("argument", ["--mode=gt", "--latents=mean", "--split=test", "--corpus=wsj0"])
def test_arguments_without_effect_do_not_exist(run: Run, argument: str) -> None:
    with pytest.raises(SystemExit):
        generated(run, argument)
