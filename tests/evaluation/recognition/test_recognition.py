"""Recognition across domains: which utterances, which features, and the report of the command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from corpora.loading.sequences import Prepared
from corpora.recipes.synthetic.phones import Spoken as Phone
from corpora.types import Corpus, Sound, Utterance
from dvae_pyro.errors import UserError
from evaluation.recognition.__main__ import main
from evaluation.recognition.ctc import RecogniserOptions
from evaluation.recognition.dataset import ALL, FeatureSet, TranscribedSplit, read_transcribed, stacked, transcript
from evaluation.recognition.experiment import evaluate
from inference.runs import create, write_run
from inference.settings.resolve import resolve
from tests.sounds import noise

RATE = 8000
TONES = {"0": 500.0, "1": 1500.0}


def utterance(**labels: Any) -> Utterance:
    return Utterance("f", "ann", lambda: Sound(np.zeros((1, 1)), RATE), labels)


def test_what_is_said_is_found_in_the_labels() -> None:
    content = [Phone("aa", 1, 0.0), Phone("t", 1, 0.0)]
    assert transcript(utterance(transcript=["4", "2"], content=content)) == ["4", "2"]
    assert transcript(utterance(content=content)) == ["aa", "t"]
    assert transcript(utterance(text="one  two")) == ["one", "two"] and transcript(utterance()) == []


def test_stacked_frames_lose_nothing_but_the_rest() -> None:
    x = torch.arange(14.0).reshape(7, 2)
    assert torch.equal(stacked(x, 3).flatten(), x[:6].flatten()) and stacked(x, 3).shape == (2, 6)
    assert torch.equal(stacked(x, 1), x)
    assert stacked(x[:2], 3).tolist() == [[0.0, 1.0, 2.0, 3.0, 2.0, 3.0]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits that are tones, in the layout of fsdd."""
    root = tmp_path_factory.mktemp("digits")
    for speaker in ("ann", "bob"):
        (root / speaker).mkdir()
        for digit, hertz in TONES.items():
            for take in range(0, 14):
                time = np.arange(1500 + 10 * take) / RATE
                samples = 0.3 * np.sin(2 * np.pi * hertz * time) + noise(len(time), 0.003)
                soundfile.write(root / speaker / f"{digit}_{speaker}_{take}.wav", samples, RATE)
    return root


def run_on(root: Path, path: Path, model: str, *more: str) -> Path:
    overrides = ["data.corpus=fsdd", "data.subset=strings", f"data.root={root}", "model.bins=12", "model.h_dim=6"]
    settings = resolve(model, overrides=[*overrides, "model.z_dim=3", "guide.h_dim=6", *more])
    built, guide = create(settings)
    built.fit_input([torch.randn(20, 12) - 5.0])
    write_run(path, settings, built, guide)
    return path


def test_the_command_reports_a_row_for_each_recogniser(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fhvae = run_on(tree, tmp_path / "fhvae", "fhvae", "data.conditions=ABC")
    beta = run_on(tree, tmp_path / "beta", "beta_vae", "train.beta=2", "data.conditions=ABCD")
    arguments = ["--steps", "4", "--width", "4", "--hop", "4", "--seeds", "2", "--json", str(tmp_path / "copy.json")]
    assert main([str(fhvae), str(beta), *arguments]) == 0, capsys.readouterr().err
    report = json.loads((fhvae / "recognition.json").read_text())
    assert report == json.loads((tmp_path / "copy.json").read_text())
    assert report["domains"] == ["clean", "noisy", "channel", "noisy+channel"] and report["from"] == "clean"
    described = [(row["trained"], row["run"], row["features"], row["dim"]) for row in report["rows"]]
    assert described == [
        ("all", None, "fbank", 48),
        ("clean", None, "fbank", 48),
        ("clean", str(fhvae), "z1", 6),
        ("clean", str(fhvae), "z2", 6),
        ("clean", str(beta), "z1", 6),
    ]
    assert [row.get("model_domains") for row in report["rows"]] == [None, None, "ABC", "ABC", "ABCD"]
    assert report["rows"][2]["alpha"] == 10.0 and report["rows"][4]["beta"] == 2.0
    assert report["recogniser"]["seeds"] == [0, 1] and report["tokens"] == 2
    assert report["num_sequences"] % 4 == 0 and report["num_tokens"] == 4 * 2 * 20
    for row in report["rows"]:
        for domain in [*report["domains"], "all"]:
            found = row["error"][domain]
            assert found["mean"] == pytest.approx(np.mean(found["by_seed"])) and len(found["by_seed"]) == 2
        # As many tokens in each domain: the rate of all is their mean.
        mean = np.mean([row["error"][domain]["mean"] for domain in report["domains"]])
        assert row["error"]["all"]["mean"] == pytest.approx(mean)
    out, _ = capsys.readouterr()
    assert "noisy+channel" in out and f"ABC, alpha=10, {fhvae}" in out and f"ABCD, beta=2, {beta}" in out
    assert (fhvae / "recognition.png").stat().st_size > 1000


def made(count: int, seed: int) -> TranscribedSplit:
    """Tokens of four frames with a blank one between; in domain b their directions are exchanged."""
    generator = torch.Generator().manual_seed(seed)
    found = TranscribedSplit([], [], [])
    for n in range(count):
        tokens = torch.randint(2, (4,), generator=generator).tolist()
        domain = "ab"[n % 2]
        frames = [torch.zeros(1, 3)]
        for token in tokens:
            frames += [torch.eye(3)[token if domain == "a" else 1 - token].expand(4, -1), torch.zeros(1, 3)]
        x = torch.cat(frames)
        found.items.append(Prepared(x + 0.1 * torch.randn(x.shape, generator=generator), str(n), "s", 0))
        found.transcripts.append(["xy"[token] for token in tokens])
        found.domains.append(domain)
    return found


def test_a_recogniser_of_one_domain_fails_where_tokens_sound_like_others() -> None:
    splits = {"train": made(64, 0), "valid": made(12, 1), "test": made(24, 2)}
    options = RecogniserOptions(width=10, steps=100, batch=8, lr=3e-2, every=20)
    row = FeatureSet("a", None, "fbank")
    (found,) = evaluate([row], splits, options, hop=1, seeds=[0], device="cpu")
    assert list(found["error"]) == ["a", "b", ALL]
    assert found["error"]["a"]["mean"] < 0.1 < 0.4 < found["error"]["b"]["mean"]
    assert found["error"][ALL]["mean"] == pytest.approx((found["error"]["a"]["mean"] + found["error"]["b"]["mean"]) / 2)


def test_utterances_too_short_to_be_said_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": made(8, 0), "valid": made(4, 1), "test": made(4, 2)}
    splits["train"].items[0] = splits["train"].items[0]._replace(x=splits["train"].items[0].x[:3])
    options = RecogniserOptions(width=3, steps=1, batch=8)
    evaluate([FeatureSet("a", None, "fbank")], splits, options, hop=1, seeds=[0], device="cpu")
    assert "1 of 4 training utterances are too short for --hop 1" in capsys.readouterr().err


def test_what_cannot_be_recognised_is_refused(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_on(tree, tmp_path / "run", "fhvae")
    other = run_on(tree, tmp_path / "other", "beta_vae", "data.hop=160")
    settings = resolve("vae", overrides=["data.corpus=fsdd", f"data.root={tree}"])
    write_run(tmp_path / "vae", settings, *create(settings))
    for arguments, message in (
        ([str(tmp_path / "vae")], "has no latents of segments"),
        ([str(run), str(other)], "differ in data.hop"),
        ([str(run), "--hop", "21"], "--hop 21"),
        ([str(run), "--seeds", "0"], "--seeds 0"),
        ([str(run), "--by", "speaker", "--from", "anne"], "values ann, bob of speaker. Give one. Did you mean 'ann'"),
        ([str(run), "--by", "sex"], "the label --by sex: their labels are transcript"),
    ):
        assert main([*arguments, "--steps", "1"]) == 2
        assert message in capsys.readouterr().err


def test_utterances_without_transcript_or_domain_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    settings = resolve("fhvae", overrides=["model.bins=12", "data.rate=8000"])
    sound = Sound(noise(4000)[:, None], RATE)
    labels: list[dict[str, Any]] = [
        {"transcript": ["1"], "sex": "f"},
        {"transcript": [], "sex": "f"},
        {"transcript": ["2"]},
        {"text": "3 4", "sex": "m"},
    ]
    corpus = Corpus("c", "", {"test": [Utterance(f"{n}", "s", lambda: sound, o) for n, o in enumerate(labels)]})
    run: Any = SimpleNamespace(settings=settings)
    found = read_transcribed(run, corpus, "test", "sex")
    assert found.transcripts == [["1"], ["3", "4"]] and found.domains == ["f", "m"] and found.indices(ALL) == [0, 1]
    assert "left out 2 of 4 utterances, without transcript or sex" in capsys.readouterr().err
    with pytest.raises(UserError, match="test.*--by dialect"):
        read_transcribed(run, corpus, "test", "dialect")
