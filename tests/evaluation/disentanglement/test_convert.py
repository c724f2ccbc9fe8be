"""Conversion: the sound it leaves is that of the shifted z2, and its report says how far that goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.convert import main
from evaluation.disentanglement.conversion import way_to_the_reference
from evaluation.disentanglement.pairs import exchanged, read_pair
from evaluation.loading.waveforms import sound_frontend
from guides.fhvae import s_vectors
from inference.runs import Run
from tests.support.latents import made_run, write_pair
from tests.support.runs import SMALL_FHVAE


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path / "run", "fhvae", *SMALL_FHVAE)


def converted(run: Run, root: Path, *arguments: object) -> int:
    return main([str(run.path), "--corpus", "folder", "--root", str(root), *map(str, arguments)])


@pytest.mark.parametrize("hop", ["null", "10"])
def test_the_sound_is_the_source_with_the_references_mu2(run: Run, tmp_path: Path, hop: str) -> None:
    import soundfile

    root, out = write_pair(tmp_path / "corpus"), tmp_path / "made" / "c.wav"
    pair = ["--source", "a", "--reference", root / "test" / "b" / "b.wav", "--out", out]
    assert converted(run, root, *pair, "--phase", "input", f"evaluation.segment_hop={hop}") == 0
    assert {path.name for path in out.parent.iterdir()} == {"c.wav", "c.png", "c.json"}
    frontend = sound_frontend(run)
    run.settings.evaluation.segment_hop = None if hop == "null" else 10
    where = {"--source": str(root / "test" / "a" / "a.wav"), "--reference": str(root / "test" / "b" / "b.wav")}
    a, b = read_pair(run, "test", where, frontend)
    data = exchanged(run, [a, b], mode="gen", latents="mean")
    amplitude = np.sqrt(frontend.power(data[1, : len(a.x)].numpy()))
    expected = frontend.waveform(amplitude * np.exp(1j * np.angle(a.spectrum)))
    samples, _ = soundfile.read(out)
    np.testing.assert_allclose(samples, expected / max(1.0, np.abs(expected).max()), atol=2e-4)
    report = json.loads(out.with_suffix(".json").read_text())
    assert (
        report["converted"] == ["mu2"] and report["source"] == "test/a/a.wav" and report["files"] == ["c.wav", "c.png"]
    )
    lengths = torch.tensor([len(a.x), len(a.x), len(b.x)])
    way = way_to_the_reference(run, data[[0, 1, 3]], lengths)
    assert report["metrics"]["way_to_the_reference"]["mean"] == pytest.approx(way)


def test_the_way_is_that_of_the_s_vectors(run: Run) -> None:
    """By Eq. 5, of full segments; 0 for what stayed where it was, 1 for what arrived."""
    data = torch.randn(3, 40, 64, dtype=torch.float64)
    with torch.no_grad():
        segments = data.unflatten(1, (2, 20)).flatten(0, 1).transpose(0, 1)
        means = run.guide.z2_mean(segments, torch.full((6,), 20))  # type: ignore[operator]  # an attribute of a Module
    source, conv, reference = s_vectors(means, torch.arange(3).repeat_interleave(2), 3, 0.25).tolist()
    way = [r - s for r, s in zip(reference, source, strict=True)]
    expected = sum((c - s) * w for c, s, w in zip(conv, source, way, strict=True)) / sum(w * w for w in way)
    lengths = torch.full((3,), 40)
    assert way_to_the_reference(run, data, lengths) == pytest.approx(expected)
    assert way_to_the_reference(run, data[[0, 0, 2]], lengths) == pytest.approx(0.0, abs=1e-12)
    assert way_to_the_reference(run, data[[0, 2, 2]], lengths) == pytest.approx(1.0)


def test_any_model_with_a_latent_of_the_sequence_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, root = made_run(tmp_path / "run", "dsae", "model.v_dim=2"), write_pair(tmp_path / "corpus")
    assert converted(run, root, "--source", "a", "--reference", "b", "--out", tmp_path / "c.wav") == 0
    out = capsys.readouterr().out
    assert "test/a/a.wav with v of test/b/b.wav" in out and "s-vector" not in out


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("dsae", ["--source", "a", "--reference", "c", "--out", "c.wav"], "--reference c: no such file"),
        ("dsae", ["--source", "a", "--reference", "b", "--out", "c.mp3"], "name of a .wav file"),
        ("beta_vae", ["--source", "a", "--reference", "b", "--out", "c.wav"], "no latent of the whole sequence"),
    ],
)
def test_mistakes_get_one_message(
    model: str,
    arguments: Sequence[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = made_run(tmp_path / "run", model, *(SMALL_FHVAE if model == "beta_vae" else []))
    assert converted(run, write_pair(tmp_path / "corpus"), *arguments) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.glob("c.*"))
