"""What evaluation.frechet compares with what, and what it says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.frontends.griffin_lim import griffin_lim
from corpora.frontends.stft import Stft
from corpora.types import Sound
from evaluation.frechet.__main__ import main
from evaluation.frechet.distances import frechet_distance
from evaluation.frechet.features import extract, open_extractor
from evaluation.loading.waveforms import sound_frontend
from inference.prediction.generation import generate
from inference.runs import Run
from tests.sounds import RATE, Signal, noise, voice
from tests.support.runs import SMALL_SPECTRA, saved_run, write_sounds

PIECE = 1600


def sound(number: int) -> Signal:
    """The sound of a file: 0.25 s or 0.35 s, so two or three pieces and a rest."""
    length = 4000 if number % 2 else 5600
    return np.asarray((voice(1.0)[number * 700 :][:length] + noise(length, 0.01 + 0.05 * number)) / 2.0)


SPLITS = {"train": (0, 1, 2), "test": (3, 4)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {f"{split}/speaker/{n}.wav": sound(n) for split, numbers in SPLITS.items() for n in numbers}
    return write_sounds(tmp_path / "corpus", files)


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Run:
    overrides = [*SMALL_SPECTRA, "data.trim_db=null", "data.corpus=folder", f"data.root={root}"]
    return saved_run(tmp_path / "run", "vae", *overrides, fit=torch.rand(20, 65, dtype=torch.float64))


def measured(run: Run, *arguments: object) -> int:
    return main([str(run.path), "--seconds", "0.1", "--resamples", "3", *map(str, arguments)])


def report_of(run: Run) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run.path / "frechet.json").read_text())
    return report


def cut(frontend: Stft, split: str) -> torch.Tensor:
    whole = [frontend.prepare(Sound(sound(number)[:, None], RATE)) for number in SPLITS[split]]
    cuts = [samples[i : i + PIECE] for samples in whole for i in range(0, len(samples) - PIECE + 1, PIECE)]
    return torch.from_numpy(np.stack(cuts))


def test_distances_are_those_of_features_of_pieces(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(run, "--sequences", 12, "--chunk", 5) == 0
    frontend = sound_frontend(run)
    extractor = open_extractor("log_mel", RATE, "cpu")
    train, test = cut(frontend, "train"), cut(frontend, "test")
    assert len(train) == 3 + 2 + 3 and len(test) == 2 + 3
    spectra = np.stack([np.abs(frontend.spectrum(piece)) ** 2 for piece in test.numpy()])
    x, _ = generate(run.model, 12, 26)
    sets = {
        "generated": griffin_lim(x.transpose(0, 1), frontend),
        "exact_phase": test,
        "griffin_lim": griffin_lim(torch.from_numpy(spectra).float(), frontend),
    }
    against = extract(extractor, [train])
    report = report_of(run)
    assert report["reference"] == {"split": "train", "n": 8}
    for name, waveforms in sets.items():
        found = report["metrics"][name]
        expected = frechet_distance(extract(extractor, [waveforms]), against)
        assert found["mean"] == pytest.approx(expected, rel=2e-3), name
        assert found["n"] == len(waveforms) and found["stderr"] > 0.0
    out, err = capsys.readouterr()
    assert "test set, Griffin-Lim" in out and "log-mel statistics" in out
    assert "no more sounds than features (320)" in err and "different sizes" in err


def test_num_bounds_every_set_and_sequences_that_run_away_are_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evaluation.frechet import command

    def sampled(*arguments: object) -> list[torch.Tensor]:
        power = torch.rand(4, 26, 65)
        power[1, 3, 7] = float("nan")
        return [power]

    monkeypatch.setattr(command, "sampled", sampled)
    assert measured(run, "--sequences", 4) == 0
    report = report_of(run)
    counts = {name: found["n"] for name, found in report["metrics"].items()}
    assert counts == {"generated": 3, "exact_phase": 4, "griffin_lim": 4} and report["reference"]["n"] == 4
    assert report["not_finite"] == 1 and report["metrics"]["generated"]["bias"] is None
    assert "1 generated sequences diverged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "none.pt"], "no such file"),
        (["--sequences", "1"], "--sequences 1"),
        (["--seconds", "1"], "0 pieces of 16000 samples in split train"),
    ],
)
def test_mistakes_get_one_message(
    run: Run, arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured(run, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert not (run.path / "frechet.json").exists()
