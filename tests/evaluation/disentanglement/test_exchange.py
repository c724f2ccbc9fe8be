"""The exchange of a sequence's latent: what is decoded from what, and what the command leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from corpora.types import Sound
from evaluation.disentanglement.pairs import exchanged, sequence_latents
from evaluation.exchange import main
from evaluation.loading.waveforms import SoundItem, sound_frontend
from inference.prediction.reconstruction import reconstruct
from inference.runs import Run
from models.registry import model_class, model_names
from tests.sounds import RATE, voice
from tests.support.latents import made_run, write_pair
from tests.support.runs import SMALL_FHVAE

LIGHT = ["model.d_model=8", "model.ff=16", "model.layers=1", "model.x=[8]", "model.w_dim=2"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made_run(tmp_path / "run", "dsae", "model.v_dim=2")


def spoken(run: Run, *seconds: float) -> list[SoundItem]:
    frontend = sound_frontend(run)
    found = []
    for i, length in enumerate(seconds):
        samples = frontend.prepare(
            Sound(voice(length)[:, None] * np.linspace(1.0, 0.1 + i, round(length * RATE))[:, None], RATE)
        )
        x = torch.from_numpy(frontend.features(samples))
        found.append(SoundItem(i, f"s/{i}", "s", samples, frontend.spectrum(samples), x))
    return found


def alone(run: Run, one: SoundItem) -> tuple[Tensor, dict[str, Tensor]]:
    x = one.x[:, None].double()
    out = reconstruct(run.model, run.guide, x, torch.tensor([len(x)]), mode="gen")
    return out.mean[:, 0], out.latents


def test_each_is_decoded_with_the_others_latent_and_its_own_z(run: Run) -> None:
    a, b = spoken(run, 0.3, 0.2)
    found = exchanged(run, [a, b], mode="gen", latents="mean")
    assert found.shape == (4, len(a.x), 65)
    (x_a, of_a), (x_b, of_b) = alone(run, a), alone(run, b)
    torch.testing.assert_close(found[0], x_a)
    torch.testing.assert_close(found[3, : len(b.x)], x_b)
    with torch.no_grad():
        a_with_b = run.model.decoder(of_b["v"][None], of_a["z"]).mean[:, 0]  # type: ignore[operator]  # attributes of a Module
        b_with_a = run.model.decoder(of_a["v"][None], of_b["z"]).mean[:, 0]  # type: ignore[operator]  # attributes of a Module
    torch.testing.assert_close(found[1], a_with_b)
    torch.testing.assert_close(found[2, : len(b.x)], b_with_a)
    assert bool((found[2:, len(b.x) :] == 0.0).all())
    assert not torch.allclose(found[0], found[1], rtol=1e-5)


def test_a_model_that_looks_back_sees_its_own_exchanged_past(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "light_dvae", *LIGHT)
    a, b = spoken(run, 0.1, 0.1)
    own, other, *_ = exchanged(run, [a, b], mode="gen", latents="mean")
    torch.testing.assert_close(own, alone(run, a)[0])
    teacher_forced = exchanged(run, [a, b], mode="gt", latents="mean")
    torch.testing.assert_close(teacher_forced[1][0], other[0])  # nothing lies before the first frame
    assert not torch.allclose(teacher_forced[1], other)


def test_segments_keep_their_place_around_the_others_mu2(tmp_path: Path) -> None:
    """z2 of each segment, moved by the difference of the s-vectors; the rest is as it was."""
    run = made_run(tmp_path / "run", "fhvae", *SMALL_FHVAE)
    a, b = spoken(run, 0.3, 0.2)
    found = exchanged(run, [a, b], mode="gen", latents="mean")
    (x_a, of_a), (x_b, of_b) = alone(run, a), alone(run, b)
    torch.testing.assert_close(found[0], x_a)
    torch.testing.assert_close(found[3, : len(b.x)], x_b)
    for decoded, length, of_one, of_other in ((found[1], len(a.x), of_a, of_b), (found[2], len(b.x), of_b, of_a)):
        z2 = of_one["z2"] - of_one["mu2"] + of_other["mu2"]
        with torch.no_grad():
            h = run.model.h(torch.cat([of_one["z1"], z2], -1).expand(20, -1, -1))[0]  # type: ignore[operator]  # attributes of a Module
            each = run.model.scaling.inverse(run.model.decoder(h).mean)  # type: ignore[operator]  # attributes of a Module
        expected = each.transpose(0, 1).flatten(0, 1)
        torch.testing.assert_close(decoded[:length], expected[:length])
        assert bool((decoded[length:] == 0.0).all())
    assert not torch.allclose(found[0], found[1], rtol=1e-5)


def test_models_that_have_one() -> None:
    classes = {name: model_class(name) for name in model_names()}
    found = {name: sequence_latents(c, c.Settings(name=name)) for name, c in classes.items()}
    assert (
        found["dsae"] == ("v",)
        and found["light_dvae"] == ("w",)
        and found["fhvae"] == ("mu2",)
        and found["srnn"] == found["ms_stcn"] == found["beta_vae"] == ()
    )


def test_the_command_leaves_sounds_a_picture_and_a_report(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    root = write_pair(tmp_path / "corpus")
    picture = tmp_path / "copy.png"
    where = ["--corpus", "folder", "--root", str(root), "--picture", str(picture)]
    assert main([str(run.path), *where, "--source", "a", "--reference", str(root / "test" / "b" / "b.wav")]) == 0
    assert picture.stat().st_size > 5000
    out = capsys.readouterr().out
    assert "v of test/a/a.wav" in out and "mode" not in out  # a DSAE is given no past frames
    names = {f"{who}-with-v-of-{whose}.wav" for who in ("a-a", "b-b") for whose in "ab"}
    assert {path.name for path in (run.path / "exchange").iterdir()} == {*names, "exchange.png"}
    report = json.loads((run.path / "exchange.json").read_text())
    assert report["exchanged"] == ["v"] and report["phase"] == "griffin_lim"
    assert report["metrics"]["a_moved_db"]["mean"] > 0.0
    lengths = {name: len(soundfile.read(run.path / "exchange" / name)[0]) for name in names}
    assert {lengths[name] for name in names if name.startswith("a")} == {4800 // 64 * 64}


def test_of_one_utterance_with_itself_nothing_moves_and_that_is_said(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pair(tmp_path / "corpus")
    same = ["--source", "a", "--reference", "a", "--phase", "input", "--out", str(tmp_path / "out")]
    assert main([str(run.path), "--corpus", "folder", "--root", str(root), *same]) == 0
    out, err = capsys.readouterr()
    assert "of A by 0.00 dB" in out and "does not use v" in err
    assert not (run.path / "exchange").exists()


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("dsae", ["--source", "none", "--reference", "b"], "--source none: no such file in split 'test'"),
        ("dsae", ["--source", "a", "--reference", "wav"], "--reference wav matches several files"),
        ("dkf", ["--source", "a", "--reference", "b"], "no latent of the whole sequence"),
    ],
)
def test_mistakes_get_one_message(
    model: str, arguments: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pair(tmp_path / "corpus")
    run = made_run(tmp_path / "run", model)
    assert main([str(run.path), "--corpus", "folder", "--root", str(root), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (run.path / "exchange.json").exists()
