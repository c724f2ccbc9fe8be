"""DNSMOS: what is rated, what has no rating, and where reports have it."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dvae_pyro.errors import UserError
from evaluation.generate import command as generation
from evaluation.generate.__main__ import main as generate
from evaluation.recordings.mos import dnsmos, require_dnsmos
from evaluation.resynthesis import command as resynthesis
from evaluation.resynthesis.__main__ import main as resynthesise
from tests.sounds import Signal, voice
from tests.support.runs import SMALL_SPECTRA, saved_run, write_sounds


def level(samples: Signal, rate: int) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def test_the_package_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[mos\]'"):
        require_dnsmos()


def test_noise_on_speech_lowers_the_rating_and_level_does_not(shared: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra [mos]")
    pytest.importorskip("speechmos", reason="needs the extra [mos]")
    import soundfile

    pairs = shared / "corpora/noisy-speech-mini/voicebank-demand"
    clean, rate = soundfile.read(pairs / "clean/p232_002.flac")
    noisy = clean + 0.5 * float(clean.std()) * np.random.RandomState(0).standard_normal(len(clean))  # 6 dB
    rated = dnsmos(clean, rate)
    # p232_002: the value of package speechmos 0.0.1.1 for the file itself
    assert rated == pytest.approx(3.4408613, abs=1e-4)
    assert rated > dnsmos(noisy, rate) + 0.3
    assert dnsmos(clean / np.abs(clean).max() * 3.0, rate) == pytest.approx(dnsmos(clean / np.abs(clean).max(), rate))


@pytest.mark.parametrize("samples", [np.zeros(16000), np.full(16000, np.nan)])
def test_silence_and_what_is_not_finite_have_no_rating(samples: Signal) -> None:
    assert math.isnan(dnsmos(samples, 16000))


def test_resynthesis_rates_estimate_and_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("dnsmos", level), ("require_dnsmos", lambda: None)):
        monkeypatch.setattr(resynthesis, name, value)
    write_sounds(tmp_path / "corpus", {f"test/s/{i}.wav": voice(0.4 + 0.1 * i) for i in range(3)})
    run = saved_run(tmp_path / "run", "vae", *SMALL_SPECTRA, fit=torch.rand(20, 65, dtype=torch.float64))
    arguments = [str(run.path), "--corpus", "folder", "--root", str(tmp_path / "corpus"), "--jobs", "0"]
    assert resynthesise([*arguments, "--without-pesq", "--mos"]) == 0
    report = json.loads((run.path / "resynthesis.json").read_text())
    assert report["metrics"]["dnsmos_reference"]["n"] == report["num_sequences"]
    assert report["metrics"]["dnsmos_reference"]["mean"] != report["metrics"]["dnsmos"]["mean"]
    header = (run.path / "resynthesis.csv").read_text().splitlines()[0].split(",")
    assert header[-2:] == ["dnsmos", "dnsmos_reference"]


def test_generation_rates_each_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("dnsmos", level), ("require_dnsmos", lambda: None)):
        monkeypatch.setattr(generation, name, value)
    run = saved_run(tmp_path / "run", "vae", *SMALL_SPECTRA, fit=torch.rand(20, 65, dtype=torch.float64))
    out = tmp_path / "out"
    assert generate([str(run.path), "--sequences", "3", "--seconds", "0.1", "--mos", "--out", str(out)]) == 0
    report = json.loads((out / "generate.json").read_text())
    each = [file["dnsmos"] for file in report["files"]]
    assert report["metrics"]["dnsmos"]["mean"] == pytest.approx(np.mean(each)) and len(set(each)) == 3
    assert generate([str(run.path), "--no-audio", "--mos", "--out", str(tmp_path / "more")]) == 2
