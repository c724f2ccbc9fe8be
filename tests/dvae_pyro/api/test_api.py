"""The Python entry computes what the commands compute, on arrays in place of files."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import dvae_pyro as dvae
from corpora.loading.sequences import collate
from dvae_pyro.errors import UserError
from evaluation.generate.__main__ import main as generate_command
from evaluation.likelihood.__main__ import main as likelihood_command
from evaluation.resynthesis import decoding
from evaluation.resynthesis.decoding import resynthesise
from inference.objectives.elbo import Terms
from inference.prediction.reconstruction import Reconstruction, reconstruct
from inference.svi import main as train_command
from tests.sounds import RATE, noise, voice
from tests.support.runs import SMALL_FHVAE, SMALL_SPECTRA, saved_run, write_sounds

SECONDS = {"a": 0.3, "b": 0.5, "c": 0.4}


def saved(tmp_path: Path, model: str, *overrides: str, device: str = "cpu") -> dvae.Run:
    """A run of initial weights with a corpus of three utterances of noisy tones, which trimming leaves whole."""
    sounds = {f"test/{name}/{name}.wav": 0.5 * voice(s) + noise(round(s * RATE)) for name, s in SECONDS.items()}
    root = write_sounds(tmp_path / "corpus", sounds)
    data = ["data.corpus=folder", f"data.root={root}", "data.trim_db=null"]
    settings = [*SMALL_SPECTRA, *data, *overrides]
    bins = 64 if "model.bins=64" in overrides else 65
    path = saved_run(tmp_path / model, model, *settings, fit=torch.rand(20, bins, dtype=torch.float64)).path
    return dvae.load(path, device=device)


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, dvae_pyro as dvae\n"
        "assert {'load', 'train', 'Run'} <= set(dir(dvae))\n"
        "assert not {'torch', 'numpy', 'pyro', 'dvae_pyro.api'} & set(sys.modules)\n"
        "dvae.load\n"
        "assert 'torch' in sys.modules\n"
        "dvae.nonsense"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert ended.stderr.strip().endswith("AttributeError: module 'dvae_pyro' has no attribute 'nonsense'")
    assert "line 6" in ended.stderr


def test_a_run_says_what_it_is(tmp_path: Path) -> None:
    run = saved(tmp_path, "dkf")
    assert repr(run) == f"Run('{tmp_path / 'dkf'}': dkf, guide paper, best.pt at step 0, cpu)"
    assert run.rate == RATE and run.step == 0 and not run.model.training
    assert dvae.load(run.path, "data.rate=8000").rate == 8000
    with pytest.raises(UserError, match=r"nowhere(.|\n)*--run nowhere"):
        dvae.load("nowhere")


MODELS: dict[str, tuple[list[str], dict[str, str | int]]] = {
    "dkf": (["model.z_x=[5]"], {"z": "frames"}),
    "dsae": (["model.v_dim=2"], {"v": "sequence", "z": "frames"}),
    "ms_stcn": (
        ["data.frontend=stft", "model.likelihood=power_spectrum", "model.strides=[1,2,2]", "model.widths=[3,3,3]"],
        {"layer1": 1, "layer2": 2, "layer3": 4},
    ),
    "beta_vae": (SMALL_FHVAE, {"z1": "segments"}),
    "fhvae": (SMALL_FHVAE, {"mu2": "sequence", "z2": "segments", "z1": "segments"}),
    "one_segment": (
        [*SMALL_FHVAE, "model.segment=200", "data.sequence_frames=200"],
        {"mu2": "sequence", "z2": "segments", "z1": "segments"},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_latents_of_an_utterance_are_those_of_it_alone(name: str, tmp_path: Path) -> None:
    overrides, sites = MODELS[name]
    run = saved(tmp_path, {"one_segment": "fhvae"}.get(name, name), *overrides)
    utterances = run.utterances("test")
    together = run.latents("test")
    assert [(z.file, z.frames) for z in together] == [(u.file, len(u.x)) for u in utterances]
    assert len({z.frames for z in together}) == 3  # so that padding would be seen
    for latents, utterance in zip(together, utterances, strict=True):
        alone = run.encode(utterance.x[:, None])
        assert set(latents.values) == set(sites)
        for site, kind in sites.items():
            value = latents[site]
            if kind == "sequence":
                expected, rows = alone[site][0], None
            elif kind == "segments":
                expected, rows = alone[site], -(-latents.frames // (run.model.segment or 1))
            else:
                stride = 1 if kind == "frames" else int(kind)
                expected, rows = alone[site][:, 0], -(-latents.frames // stride)
            torch.testing.assert_close(value, expected)
            assert value.shape[:-1] == (() if rows is None else (rows,))
    drawn = run.latents(utterances, draws=3)
    for latents, mean in zip(drawn, together, strict=True):
        assert all(latents[site].shape == (3, *mean[site].shape) for site in sites)


def test_draws_have_the_moments_of_the_guide(tmp_path: Path) -> None:
    import pyro.poutine as poutine

    run = saved(tmp_path, "vae", "model.z_x=[5]")
    utterance = run.utterances("test", 1)[0]
    trace: Any = poutine.trace(run.guide).get_trace(utterance.x[:, None].double(), torch.tensor([len(utterance.x)]))
    q = trace.nodes["z"]["fn"]
    mean, deviation = q.mean[:, 0].detach(), q.variance[:, 0].sqrt().detach()
    (latents,) = run.latents([utterance])
    torch.testing.assert_close(latents["z"], mean)
    count = 300
    (latents,) = run.latents([utterance], draws=count)
    z = (latents["z"] - mean) / deviation  # independent standard normals
    assert float(z.mean(0).abs().max()) < 6 / count**0.5
    assert float((z.var(0) - 1).abs().max()) < 6 * (2 / count) ** 0.5
    torch.rand(1)  # the noise follows the run's seed, not torch's generator
    assert torch.equal(latents["z"], run.latents([utterance], draws=count)[0]["z"])


@pytest.mark.parametrize("mode", ["gt", "gen"])
@pytest.mark.parametrize("name", ["vrnn", "fhvae"])
def test_decoding_what_was_encoded_is_the_reconstruction(name: str, mode: str, tmp_path: Path) -> None:
    run = saved(tmp_path, name, *(SMALL_FHVAE if name == "fhvae" else ["model.h_dim=4"]))
    batch = collate(run.utterances("test"))
    x = batch.x.double()
    expected = reconstruct(run.model, run.guide, x, batch.lengths, mode=mode).mean
    latents = run.encode(batch.x, batch.lengths)
    torch.testing.assert_close(run.decode(latents, batch.x, batch.lengths, mode=mode), expected)
    if mode == "gen":
        torch.testing.assert_close(run.decode(latents, lengths=batch.lengths), expected)
    if name == "vrnn":
        torch.testing.assert_close(run.decode(latents["z"], batch.x, batch.lengths, mode=mode), expected)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    run = saved(tmp_path, "fhvae", *SMALL_FHVAE)
    x = torch.rand(30, 2, 64)
    with pytest.raises(UserError, match=r"\(30, 64\).*\(T, N, D\).* 64\b"):
        run.encode(x[:, 0])
    with pytest.raises(UserError, match=r"lengths.* \[31, 2\].* 2 .* 30"):
        run.encode(x, torch.tensor([31, 2]))
    with pytest.raises(UserError, match="latents.* lengths or x"):
        run.decode(run.encode(x))
    with pytest.raises(UserError, match=r"expected a mapping with mu2, z2, z1.* got a tensor"):
        run.decode(run.encode(x)["z1"])
    with pytest.raises(UserError, match=r"expected a mapping with mu2, z2, z1.* got a mapping with z1"):
        run.decode({"z1": run.encode(x)["z1"]})
    with pytest.raises(UserError, match="pass x"):
        run.decode(run.encode(x), mode="gt")
    with pytest.raises(UserError, match="'scm'.*'smc'"):
        run.likelihood(x, "scm")
    with pytest.raises(UserError, match=r"\(3, 2\).*channel"):
        run.features(np.zeros((3, 2)))
    with pytest.raises(UserError, match="'z'.* mu2, z2, z1"):
        run.latents("test")[0]["z"]
    with pytest.raises(UserError, match="draws=0"):
        run.latents("test", draws=0)


def test_resynthesis_is_that_of_the_command(tmp_path: Path) -> None:
    run = saved(tmp_path, "dkf")
    root = Path(run.settings.data.root or "")
    from evaluation.loading.splits import corpus_of

    for each in resynthesise(run.loaded, corpus_of(run.settings, "test").splits["test"]):
        y = run.resynthesise(root / each.file)
        samples, rate = soundfile.read(root / each.file)
        assert y.rate == rate == RATE and y.samples.shape == samples.shape
        np.testing.assert_allclose(y.samples, each.estimate * np.abs(samples).max(), atol=1e-9)


def perfect(model: object, guide: object, x: Tensor, lengths: Tensor, **how: str) -> Reconstruction:
    return Reconstruction(x, Terms(-lengths.to(x.dtype), {"z": lengths.to(x.dtype)}), {})


def test_sound_comes_back_with_its_length_rate_and_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dvae.load(saved(tmp_path, "dkf").path, "data.trim_db=30")
    monkeypatch.setattr(decoding, "reconstruct", perfect)
    silence = np.zeros(3000)
    sound = 0.2 * np.concatenate([silence, voice(0.4), silence])
    y = run.resynthesise(sound)
    np.testing.assert_allclose(y.samples, sound, atol=1e-6)  # features are float32
    soundfile.write(tmp_path / "stereo.wav", np.stack([sound, sound], 1)[:9999], 22050, subtype="DOUBLE")
    y = run.resynthesise(tmp_path / "stereo.wav")
    assert y.rate == 22050 and y.samples.shape == (9999,)
    inner = slice(500, -500)  # without what lies between the two Nyquist frequencies
    error = np.sqrt(np.mean((y.samples - sound[:9999])[inner] ** 2) / np.mean(sound[:9999][inner] ** 2))
    assert error < 0.1
    again = run.resynthesise(y)
    assert again.rate == 22050 and again.samples.shape == (9999,)
    with pytest.raises(UserError, match="silent"):
        run.resynthesise(silence)


def test_features_are_those_of_training(tmp_path: Path) -> None:
    run = saved(tmp_path, "dkf")
    for utterance in run.utterances("test"):
        x = run.features(Path(run.settings.data.root or "") / utterance.file)
        torch.testing.assert_close(x, utterance.x, rtol=0, atol=0)


def test_generated_sounds_are_those_of_the_command(tmp_path: Path) -> None:
    run = saved(tmp_path, "vrnn", "model.h_dim=4")
    out = tmp_path / "generated"
    assert generate_command([str(run.path), "--sequences", "3", "--seconds", "0.2", "--out", str(out)]) == 0
    sounds = run.generate(3, 0.2)
    assert not np.allclose(sounds[0].samples, sounds[1].samples)
    for number, sound in enumerate(sounds):
        samples, rate = soundfile.read(out / f"{number:04d}.wav")
        assert rate == sound.rate
        sound.save(tmp_path / "one.wav")
        np.testing.assert_array_equal(samples, soundfile.read(tmp_path / "one.wav")[0])
    assert "audio/wav;base64,UklGR" in sounds[0]._repr_html_()
    x, latents = run.sample(3, 7, seed=5)
    assert x.shape == (7, 3, 65) and latents["z"].shape == (7, 3, 3)
    assert torch.equal(x, run.sample(3, 7, seed=5).x) and not torch.equal(x, run.sample(3, 7).x)


def test_a_sequence_that_diverges_is_nan_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(tmp_path, "dkf")
    sampled = run.sample(3, 20)
    sampled.x[4, 1] = torch.inf
    monkeypatch.setattr(dvae.Run, "sample", lambda *args, **how: sampled)
    with pytest.warns(UserWarning, match="1 of 3 "):
        sounds = run.generate(3, 0.1)
    assert [bool(np.isnan(sound.samples).all()) for sound in sounds] == [False, True, False]


@pytest.mark.filterwarnings("ignore:smc has particle degeneracy")  # weights are initial
@pytest.mark.parametrize("estimator", ["elbo", "smc"])
def test_likelihoods_are_those_of_the_command(estimator: str, tmp_path: Path) -> None:
    run = saved(tmp_path, "dkf")
    assert likelihood_command([str(run.path), "--estimator", estimator, "--particles", "10"]) == 0
    with (run.path / "likelihood.csv").open() as lines:
        expected = {row["file"]: float(row[estimator]) for row in csv.DictReader(lines)}
    utterances = run.utterances("test")
    values = run.likelihood(utterances, estimator, particles=10)
    assert dict(zip([u.file for u in utterances], values.tolist(), strict=True)) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:smc has particle degeneracy")
def test_likelihoods_of_tensors_leave_padding_out(tmp_path: Path) -> None:
    run = saved(tmp_path, "vrnn", "model.h_dim=4")
    batch = collate(run.utterances("test"))
    values = run.likelihood(batch.x, "smc", particles=8, lengths=batch.lengths)
    padded = torch.cat([batch.x, torch.full_like(batch.x[:5], 7.0)])
    torch.testing.assert_close(run.likelihood(padded, "smc", particles=8, lengths=batch.lengths), values)
    whole = run.likelihood(batch.x[: int(batch.lengths[0]), :1], "smc", particles=8)
    torch.testing.assert_close(whole, values[:1])
    with pytest.warns(UserWarning) as caught:
        run.likelihood(batch.x, "iwae", particles=2, lengths=batch.lengths)
    assert any("bound of unknown tightness" in str(warning.message) for warning in caught)


def test_training_is_that_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_sounds(
        tmp_path / "corpus", {f"{split}/{s}/{s}.wav": voice(0.4) for split, s in (("train", "a"), ("valid", "b"))}
    )
    settings = ["model.bins=65", "data.hop=64", "data.sequence_frames=20", "train.tensorboard=false"]
    run = dvae.train("vae", *settings, corpus="folder", root=root, steps=2, run=tmp_path / "ours", verbose=False)
    assert capsys.readouterr().out == ""
    command = ["--model", "vae", "--corpus", "folder", "--root", str(root), "--run", str(tmp_path / "theirs")]
    assert train_command([*command, *settings, "train.steps=2"]) == 0
    timing = ("time", "frames_per_second", "data_wait")
    ours, theirs = (
        [
            {k: v for k, v in json.loads(line).items() if k not in timing}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("ours", "theirs")
    )
    assert ours == theirs and run.path == tmp_path / "ours"
    there = dvae.load(tmp_path / "theirs")
    assert all(torch.equal(p, q) for p, q in zip(run.model.parameters(), there.model.parameters(), strict=True))
    with pytest.raises(UserError, match=f"{tmp_path / 'ours'} "):
        dvae.train("vae", *settings, corpus="folder", root=root, steps=2, run=tmp_path / "ours")


@pytest.mark.filterwarnings("ignore:smc has particle degeneracy")
@pytest.mark.parametrize("page", ["README.md", "docs/reference/python.md"])
def test_the_lines_of_the_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "dvae.load" in b)
    assert len([line for line in block.splitlines() if line]) <= 5
    run = saved(tmp_path / "runs", "dkf")
    soundfile.write(tmp_path / "a.wav", voice(0.3), RATE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["run"].path == run.path.relative_to(tmp_path)
    assert [z.frames for z in names["z"]] == [len(u.x) for u in run.utterances("test")]
    assert names["y"].samples.shape == (round(0.3 * RATE),)
    assert "p" not in names or names["p"].shape == (3,)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:smc has particle degeneracy")
def test_on_a_gpu(tmp_path: Path) -> None:
    on_cpu = saved(tmp_path, "vrnn", "model.h_dim=4")
    run = dvae.load(on_cpu.path, device="cuda")
    for ours, theirs in zip(run.latents("test"), on_cpu.latents("test"), strict=True):
        torch.testing.assert_close(ours["z"], theirs["z"])
    utterances = run.utterances("test")
    x = utterances[0].x[:, None]
    torch.testing.assert_close(run.decode(run.encode(x)).cpu(), on_cpu.decode(on_cpu.encode(x)))
    torch.testing.assert_close(
        run.likelihood(utterances, "smc", particles=8), on_cpu.likelihood(utterances, "smc", particles=8)
    )
    sound = voice(0.4)
    np.testing.assert_allclose(run.resynthesise(sound).samples, on_cpu.resynthesise(sound).samples, atol=1e-6)
    assert np.isfinite(run.generate(2, 0.2)[1].samples).all()
