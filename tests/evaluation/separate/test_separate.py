"""The command: a sound for each source, and what is measured."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.enhance.__main__ import main as enhance
from evaluation.separate.__main__ import main
from inference.runs import create, write_run
from inference.settings.resolve import resolve


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = []
    for model, hop in (("vae", 16), ("dkf", 16), ("vae", 32)):
        path = tmp_path_factory.mktemp("prior") / "run"
        overrides = ["model.bins=33", "model.z_dim=2", "data.rate=8000", f"data.hop={hop}", "model.z_x=[8]"]
        settings = resolve(model, overrides=overrides)
        write_run(path, settings, *create(settings))
        paths.append(path)
    return paths


@pytest.fixture
def mixtures(tmp_path: Path) -> Path:
    t = np.arange(4003) / 8000
    sources = [0.4 * np.sin(2 * np.pi * f * t) for f in (400, 2300)]
    for folder, samples in (("a", sources[0]), ("b", sources[1]), ("mixed", sources[0] + sources[1])):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", samples, 8000, subtype="FLOAT")
    return tmp_path


def _main(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("method", ["vem", "point"])
def test_sources_sum_to_the_mixture(runs: list[Path], mixtures: Path, method: str) -> None:
    """Without noise the Wiener gains of all sources sum to one."""
    out = mixtures / "out"
    words = ("--mixture", mixtures / "mixed", "--clean", mixtures / "a", mixtures / "b", "--out", out, "--jobs", 0)
    assert _main(runs[0], runs[1], *words, "--inference", method, "inference.steps=1") == 0
    sources = [soundfile.read(out / f"x-source{k}.wav")[0] for k in (1, 2)]
    mixed, _ = soundfile.read(mixtures / "mixed" / "x.wav")
    np.testing.assert_allclose(sources[0] + sources[1], mixed, atol=2.0**-14)
    rows = list(csv.DictReader((out / "separate.csv").read_text().splitlines()))
    assert [(row["file"], row["source"]) for row in rows] == [("x", "1"), ("x", "2")]
    for row in rows:
        assert float(row["si_sdr_difference"]) == pytest.approx(float(row["si_sdr"]) - float(row["si_sdr_input"]))


def test_two_of_one_prior_are_measured_in_the_order_that_fits(runs: list[Path], mixtures: Path) -> None:
    figures = []
    for order in (("a", "b"), ("b", "a")):
        clean = [mixtures / name for name in order]
        words = ("--mixture", mixtures / "mixed", "--clean", *clean, "--out", mixtures / "out", "--jobs", 0, "--force")
        assert _main(runs[0], runs[0], *words, "--inference", "point", "inference.steps=3") == 0
        rows = list(csv.DictReader((mixtures / "out" / "separate.csv").read_text().splitlines()))
        figures.append({order[n]: float(row["si_sdr"]) for n, row in enumerate(rows)})
    assert figures[0] == pytest.approx(figures[1])


def test_noise_may_be_a_run(runs: list[Path], mixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [runs[0], "--noisy", mixtures / "mixed", "--out", mixtures / "out", f"noise.model={runs[1]}"]
    assert enhance([str(word) for word in [*words, "inference.steps=2"]]) == 0
    assert soundfile.info(str(mixtures / "out" / "x.wav")).frames == 4003
    assert enhance([str(word) for word in [*words, "--inference", "smc", "--force"]]) == 2
    assert "noise.model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "places, words, said",
    [
        ([0], [], "one run"),
        ([0, 2], [], "data.hop=32"),
        ([0, 1], ["--inference", "mala"], "vem, refine or point"),
        ([0, 1], ["--clean", "nowhere"], "--clean names 1"),
        ([0, 1], ["inference.past=sampled"], "inference.past=own"),
        ([0, 1], ["--jobs", "-1"], "--jobs -1"),
    ],
)
def test_bad_input(
    runs: list[Path],
    mixtures: Path,
    places: list[int],
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _main(*(runs[n] for n in places), "--mixture", mixtures / "mixed", "--out", mixtures / "out", *words) == 2
    assert said in capsys.readouterr().err
