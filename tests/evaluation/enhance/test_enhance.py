"""The command: sounds as long as the input, reports, and bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.enhance.__main__ import main
from evaluation.enhance.prior import default_prior
from inference.runs import create, write_run
from inference.settings.resolve import resolve


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DKF at 8 kHz that has seen nothing."""
    path = tmp_path_factory.mktemp("prior") / "run"
    overrides = ["model.bins=33", "model.z_dim=2", "data.rate=8000", "data.hop=16", "model.z_x=[8]", "guide.g_dim=8"]
    settings = resolve("dkf", overrides=overrides)
    write_run(path, settings, *create(settings))
    return path


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Two recordings, one of another rate with two channels, and their clean ones."""
    random = np.random.RandomState(0)
    for name, rate, samples, channels in (("a", 8000, 4001, 1), ("b/c", 16_000, 9003, 2)):
        t = np.arange(samples)[:, None] / rate
        clean = 0.3 * np.sin(2 * np.pi * 440 * t) * (np.sin(2 * np.pi * 3 * t) > 0) * np.ones(channels)
        for side, noise in (("clean", 0.0), ("noisy", 0.1)):
            path = tmp_path / side / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, clean + noise * random.standard_normal(clean.shape), rate)
    return tmp_path


def _main(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_folder_is_enhanced(run: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = speech / "out"
    asked = ("--noisy", speech / "noisy", "--clean", speech / "clean", "--out", out, "--jobs", 0)
    assert _main(run, *asked, "--inference", "vem", "mala", "inference.steps=3", "noise.rank=2") == 0
    for name, samples, rate in (("a", 4001, 8000), ("b/c", 9003, 16_000)):
        for method in ("vem", "mala"):
            info = soundfile.info(str(out / method / f"{name}.wav"))
            assert (info.frames, info.samplerate, info.channels) == (samples, rate, 1)
    report = json.loads((out / "enhance.json").read_text())
    assert {*report["methods"]} == {"vem", "mala"} and report["metrics"] == report["methods"]["vem"]
    for figure in ("si_sdr", "rmse_scaled", "rmse_plain", "pesq_wb", "pesq_nb", "stoi", "estoi"):
        assert {figure, f"{figure}_input", f"{figure}_difference"} <= {*report["metrics"]}
    rows = list(csv.DictReader((out / "enhance.csv").read_text().splitlines()))
    assert [(r["file"] + r["inference"]) for r in rows] == ["avem", "b/cvem", "amala", "b/cmala"]
    assert [r["acceptance"] == "" for r in rows] == [True, True, False, False]  # a figure of chains only
    for row in rows:
        difference = float(row["si_sdr"]) - float(row["si_sdr_input"])
        assert float(row["si_sdr_difference"]) == pytest.approx(difference)
        assert float(row["real_time_factor"]) == pytest.approx(float(row["seconds"]) / float(row["duration"]), rel=1e-3)
        assert np.isfinite(float(row["bound_per_frame"]))
    assert (out / "enhance.png").stat().st_size > 10_000
    assert "SI-SDR" in capsys.readouterr().out


def test_one_file_without_a_clean_one(run: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = speech / "out"
    assert _main(run, "--noisy", speech / "noisy" / "a.wav", "--out", out, "inference.steps=2", "noise.from=0:0.1") == 0
    assert soundfile.info(str(out / "a.wav")).frames == 4001
    assert "si_sdr" not in json.loads((out / "enhance.json").read_text())["metrics"]
    assert "real-time factor" in capsys.readouterr().out


def test_a_recording_does_not_depend_on_those_beside_it(run: Path, speech: Path) -> None:
    words = ("inference.steps=4", "inference.latents=mean", "dtype=float64")
    assert _main(run, "--noisy", speech / "noisy", "--out", speech / "both", *words) == 0
    assert _main(run, "--noisy", speech / "noisy" / "a.wav", "--out", speech / "one", *words) == 0
    both, one = (soundfile.read(speech / folder / "a.wav")[0] for folder in ("both", "one"))
    np.testing.assert_allclose(both, one, atol=2.0**-15)


def test_silence_stays_silent_and_broken_files_are_named(
    run: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(speech / "noisy" / "s.wav", np.zeros(900), 8000)
    (speech / "noisy" / "t.wav").write_text("no sound")
    words = (run, "--noisy", speech / "noisy", "--out", speech / "out", "inference.steps=1")
    assert _main(*words) == 2
    assert "t.wav" in capsys.readouterr().err
    assert not (speech / "out" / "enhance.json").exists()
    assert _main(*words, "data.on_error=skip") == 0
    assert "t.wav" in capsys.readouterr().err
    silence, _ = soundfile.read(speech / "out" / "s.wav")
    assert len(silence) == 900 and not silence.any()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--inference", "vme"], "vem"),
        (["noise.rnak=3"], "noise.rank"),
        (["noise.rank=0"], "noise.rank=0"),
        (["inference.steps=-1"], "inference.steps"),
        (["inference.lr=0"], "inference.lr"),
        (["noise.from=2"], "noise.from=2"),
        (["noise.from=5:6"], "noise.from=5:6"),
        (["--clean", "nowhere"], "--clean nowhere"),
        (["--audio", "-1"], "--audio"),
    ],
)
def test_bad_input(run: Path, speech: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(run, "--noisy", speech / "noisy" / "a.wav", "--out", speech / "out", *words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_run_of_no_stft_is_refused(tmp_path: Path, speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data.frontend=fbank", "model.bins=20", "model.likelihood=gaussian", "model.input=standard"]
    settings = resolve("vae", overrides=overrides)
    write_run(tmp_path / "fbank", settings, *create(settings))
    assert _main(tmp_path / "fbank", "--noisy", speech / "noisy", "--out", tmp_path / "out") == 2
    assert "data.frontend" in capsys.readouterr().err


def test_who_has_no_prior_gets_one(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained once, and said to be of no real speech."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = (
        "model.bins=33",
        "data.window=64",
        "data.hop=16",
        "data.rate=8000",
        "train.steps=2",
        "train.tensorboard=false",
    )
    run = default_prior(small)
    words = ("--prior", "default", "--noisy", speech / "noisy" / "a.wav", "--out", tmp_path / "out")
    before = (run / "best.pt").stat().st_mtime_ns
    assert _main(*words, "inference.steps=2") == 0
    assert (run / "best.pt").stat().st_mtime_ns == before
    assert "not on real speech" in capsys.readouterr().err
    assert soundfile.info(str(tmp_path / "out" / "a.wav")).frames == 4001
    assert _main("--prior", "mine", "--noisy", speech / "noisy") == 2
