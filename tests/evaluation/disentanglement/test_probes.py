"""Linear probes of latents that hold a factor by construction, that hold nothing, and whose information is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corpora.recipes.synthetic import corpus as synthetic
from corpora.recipes.synthetic.corpus import Placed, Size
from corpora.types import Utterance
from dvae_pyro.errors import UserError
from evaluation.disentanglement.linear_probe import entropy_bits, probe
from evaluation.disentanglement.probes import classes
from evaluation.probes import main
from inference.runs import create, write_run
from inference.settings.resolve import resolve


def random(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def drawn(count: int, classes: int, seed: int = 0) -> NDArray[np.int64]:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed)).numpy()


def test_a_factor_that_is_there_is_found_and_one_that_is_not_is_not() -> None:
    y = drawn(600, 4)
    utterances = (np.arange(600) // 10).tolist()
    labels = [f"speaker{n}" for n in y]
    held = probe(np.eye(4)[y] @ random(4, 8) + 0.05 * random(600, 8, seed=2), labels, utterances)
    assert held.accuracy.mean == 1.0 and held.classes == 4 and held.segments == 600
    assert held.entropy_bits == pytest.approx(entropy_bits(labels)) and 0.25 < held.chance < 0.32
    assert 0.9 * held.entropy_bits < float(held.information_bits.mean or 0.0) <= held.entropy_bits
    noise = probe(random(600, 8, seed=3), labels, utterances)
    # 4 sigma of 600 draws that are right one time in four: 0.07. An unfit probe tells less than nothing.
    assert (
        abs(float(noise.accuracy.mean or 0.0) - 0.25) < 0.09 and -0.1 < float(noise.information_bits.mean or 0.0) < 0.02
    )


def test_information_is_that_of_two_gaussians() -> None:
    """z = +-d + N(0, 1): the logistic regression has the right form, so that the bound is the information itself."""
    d = 0.8
    y = drawn(20_000, 2, seed=5)
    z = (2 * y - 1)[:, None] * d + random(20_000, 1, seed=6)
    found = probe(z, [str(n) for n in y], (np.arange(20_000) // 20).tolist())
    grid = np.linspace(-8, 8, 4001)
    densities = [np.exp(-((grid - s * d) ** 2) / 2) / np.sqrt(2 * np.pi) for s in (-1, 1)]
    mixed = sum(densities) / 2
    exact = sum(np.trapezoid(p * np.log2(p / mixed), grid) / 2 for p in densities)
    assert found.information_bits.stderr is not None and found.information_bits.stderr < 0.01
    assert found.information_bits.mean == pytest.approx(exact, abs=5 * found.information_bits.stderr)
    assert found.accuracy.mean == pytest.approx(0.7881, abs=0.015)  # the normal distribution function at 0.8


def test_no_utterance_helps_to_predict_itself() -> None:
    """Latents that name the utterance and nothing else tell nothing of factors that are drawn for each utterance."""
    count = 120
    y = drawn(count, 2, seed=9)
    utterances = np.arange(count).repeat(5)
    found = probe(np.eye(count)[utterances], [str(n) for n in y[utterances]], utterances.tolist())
    assert float(found.accuracy.mean or 0.0) < 0.65 and float(found.information_bits.mean or 0.0) < 0.05


def test_the_truth_of_a_segment_is_what_is_said_in_its_middle() -> None:
    content = [Placed("aa", 0, 100), Placed("t", 100, 150), Placed("pau", 150, 300)]
    utterance: Any = Utterance("f", "s1", lambda: None, {"content": content, "domain": "noisy"})  # type: ignore[arg-type, return-value]  # never read
    middles = [50.0, 100.0, 149.9, 299.0, 300.0]
    assert classes(utterance, "phone", middles) == ["aa", "t", "t", "pau", None]
    assert classes(utterance, "kind", middles) == ["vowel", "plosive", "plosive", "pause", None]
    assert classes(utterance, "speaker", middles) == ["s1"] * 5 and classes(utterance, "domain", [1.0]) == ["noisy"]
    assert classes(utterance, "sex", [1.0]) == [None]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An FHVAE and a beta-VAE that nobody has trained, on a few short sentences."""
    monkeypatch.setattr(synthetic, "SIZES", {split: Size(2, 4) for split in ("train", "valid", "test")})
    paths = []
    for model in ("fhvae", "beta_vae"):
        overrides = ["model.bins=12", "data.rate=8000", "model.h_dim=8", "guide.h_dim=8", "model.z_dim=3"]
        settings = resolve(model, overrides=overrides)
        built, guide = create(settings)
        built.fit_input([5.0 * torch.randn(50, 12) - 5.0])
        paths.append(tmp_path / model)
        write_run(paths[-1], settings, built, guide)
    return paths


def test_the_command_probes_all_latents_of_all_runs(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--factors", "speaker,kind"]
    assert main([*map(str, runs), *arguments]) == 0, capsys.readouterr().err
    for path, latents in zip(runs, (["z1", "z2", "mu1", "mu2"], ["z1", "mu1"]), strict=True):
        report = json.loads((path / "probes.json").read_text())
        assert report["num_sequences"] == 8 and set(report["metrics"]) == {"speaker", "kind"}
        for of in report["metrics"].values():
            assert sorted(of) == sorted(latents)
        speaker = report["metrics"]["speaker"]["z1"]
        assert speaker["classes"] == 2 and 0.5 <= speaker["chance"] < 0.7 and speaker["segments"] > 80
        assert speaker["segments"] >= report["metrics"]["kind"]["z1"]["segments"]
    out, _ = capsys.readouterr()
    assert "speaker, %" in out and "kind, bits" in out and "chance; entropy of the factor" in out
    assert (runs[0] / "probes.png").stat().st_size > 1000


def test_factors_that_cannot_be_probed_are_refused(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        (["--factors", "sex"], "--factors sex: 0 of its values are in 4 or more utterances of split test"),
        (["data.trim_db=30"], "Add data.trim_db=null, or give --factors"),
    ):
        assert main([str(runs[0]), *more]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="got 1"):
        probe(random(8, 2), ["a"] * 8, list(range(8)))
