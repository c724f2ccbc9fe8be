"""The command, and phases that agree with what is there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpora.frontends.stft import Stft
from evaluation.inpaint.__main__ import main
from evaluation.inpaint.fill import consistent_phase
from evaluation.recordings.blocks import transformed
from inference.observation.mask import present_bins
from inference.runs import create, write_run
from inference.settings.resolve import resolve


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prior") / "run"
    overrides = ["model.bins=33", "model.z_dim=2", "data.rate=8000", "data.hop=16", "model.z_x=[8]"]
    settings = resolve("vae", overrides=overrides)
    write_run(path, settings, *create(settings))
    return path


def _tone(path: Path, samples: int, rate: int = 8000) -> np.ndarray:
    t = np.arange(samples) / rate
    x = 0.4 * np.sin(2 * np.pi * 500 * t) + 0.2 * np.sin(2 * np.pi * 1510 * t)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate, subtype="FLOAT")
    return x


def _main(*words: object) -> int:
    return main([str(word) for word in words])


def test_what_is_there_is_kept(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _tone(tmp_path / "in" / "a.wav", 4001)
    out = tmp_path / "out"
    words = (run, "--input", tmp_path / "in", "--clean", tmp_path / "in", "--gaps", "0.1:0.12,0.3:0.31", "--out", out)
    assert _main(*words, "--jobs", 0, "inference.steps=3") == 0
    made, _ = soundfile.read(out / "a.wav")
    missing = np.zeros(4001, dtype=bool)
    missing[800:960] = missing[2400:2480] = True
    np.testing.assert_allclose(made[~missing], whole[~missing], atol=2.0**-15)
    assert np.abs(made[missing]).max() > 0.0
    (row,) = csv.DictReader((out / "inpaint.csv").read_text().splitlines())
    assert {"si_sdr_prior", "si_sdr_interpolation", "si_sdr_input", "lsd_missing_prior"} <= row.keys()
    assert 0.0 < float(row["missing"]) < 0.3
    assert json.loads((out / "inpaint.json").read_text())["gaps"] == "0.1:0.12,0.3:0.31"
    assert "interpolation" in capsys.readouterr().out


def test_the_band_below_a_cut_off_is_kept(run: Path, tmp_path: Path) -> None:
    whole = _tone(tmp_path / "a.wav", 4096)
    assert (
        _main(run, "--input", tmp_path / "a.wav", "--above", 2500, "--out", tmp_path / "out", "inference.steps=2") == 0
    )
    made, _ = soundfile.read(tmp_path / "out" / "a.wav")
    low = np.fft.rfftfreq(4096, 1 / 8000) < 1800
    spectra = [np.fft.rfft(x)[low] for x in (made, whole)]
    assert np.abs(spectra[0] - spectra[1]).max() < 0.02 * np.abs(spectra[1]).max()


def test_the_input_is_compared_without_what_is_above_the_cut_off(run: Path, tmp_path: Path) -> None:
    """Of tones with powers 0.16 and 0.04 the first is left: SI-SDR is their ratio, 6.02 dB."""
    _tone(tmp_path / "a.wav", 4096)
    words = ("--input", tmp_path / "a.wav", "--clean", tmp_path / "a.wav", "--out", tmp_path / "out")
    assert _main(run, *words, "--above", 1000, "--jobs", 0, "inference.steps=1") == 0
    (row,) = csv.DictReader((tmp_path / "out" / "inpaint.csv").read_text().splitlines())
    assert float(row["si_sdr_input"]) == pytest.approx(6.02, abs=0.3)


def test_the_right_power_and_what_is_around_it_give_a_tone_back() -> None:
    """A gap of 20 ms in a tone: with its true power spectrum the phase is found."""
    frontend = Stft(8000, 256, 64)
    x = np.sin(2 * np.pi * 500 * np.arange(8000) / 8000)
    missing = np.zeros(8000, dtype=bool)
    missing[4000:4160] = True
    block = transformed(0, 0, np.where(missing, 0.0, x), 8000, frontend)
    present = present_bins(len(block.x), 256, 64, 8000, gaps=[(0.5, 0.52)])
    truth = torch.from_numpy(np.abs(frontend.spectrum(x)) ** 2)
    made = consistent_phase(truth, block, present, np.where(missing, 0.0, x) / block.scale, missing, frontend, 200)
    assert np.abs(made - x)[missing].max() < 0.2
    np.testing.assert_allclose(made[~missing], x[~missing] / block.scale)


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "--gaps"),
        (["--gaps", "0.5"], "--gaps=0.5"),
        (["--gaps", "3:4"], "0.50 s"),
        (["--gaps", "0:1"], "--gaps 0:1"),
        (["--gaps", "0.1:0.2", "inference.past=sampled"], "inference.past=own"),
        (["--above", "5000"], "4000 Hz"),
        (["--above", "1000", "--inference", "mala"], "refine, vem or point"),
    ],
)
def test_bad_input(run: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    _tone(tmp_path / "a.wav", 4000)
    assert _main(run, "--input", tmp_path / "a.wav", "--out", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
