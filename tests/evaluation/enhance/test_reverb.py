"""`--observation reverb`: a made room is removed with a prior that knows the speech, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.enhance.__main__ import main
from inference.runs import create, write_run
from inference.settings.resolve import resolve


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE at 8 kHz that has seen nothing."""
    path = tmp_path_factory.mktemp("prior") / "run"
    settings = resolve("vae", overrides=["model.bins=33", "model.z_dim=2", "data.rate=8000", "data.hop=16"])
    write_run(path, settings, *create(settings))
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bursts of noise, dry and in a room whose response decays exponentially."""
    folder, random = tmp_path_factory.mktemp("speech"), np.random.RandomState(0)
    t = np.arange(3000) / 8000
    dry = random.standard_normal(3000) * (np.sin(2 * np.pi * 5 * t) > 0.3)
    room = 0.15 * random.standard_normal(320) * 10.0 ** (-3.0 * np.arange(320) / 640)
    room[:64] = 0.0
    room[0] = 1.0
    for side, samples in (("dry", dry), ("wet", np.convolve(dry, room)[:3000])):
        soundfile.write(folder / f"{side}.wav", 0.1 * samples, 8000, subtype="FLOAT")
    return folder


def _main(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("method", ["point", "vem", "mala"])
def test_reverberation_is_removed(run: Path, speech: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "wet.wav").symlink_to(speech / "dry.wav")
    files = ("--noisy", speech / "wet.wav", "--clean", tmp_path / "clean", "--out", tmp_path / "out", "--jobs", 0)
    words = ("--inference", method, "--observation", "reverb", "reverb.taps=20", "inference.steps=15")
    assert _main(run, *files, *words) == 0
    report = json.loads((tmp_path / "out" / "enhance.json").read_text())
    assert report["observation"] == "reverb" and report["reverb"] == {"taps": 20}
    assert soundfile.info(str(tmp_path / "out" / "wet.wav")).frames == 3000
    assert report["metrics"]["si_sdr_difference"]["mean"] > 1.0, report["metrics"]["si_sdr"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["reverb.taps=0"], "reverb.taps=0"),
        (["reverb.tap=3"], "reverb.taps"),
        (["noise.rank=3"], "noise.rank"),
        (["noise.from=0:0.1"], "noise.from"),
        (["--inference", "smc"], "smc"),
    ],
)
def test_bad_input(
    run: Path, speech: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (run, "--noisy", speech / "wet.wav", "--out", tmp_path / "out", "--observation", "reverb")
    assert _main(*asked, *words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
