"""Gaps from bounds by hand, and the command on two guides of one model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.inference_gap.__main__ import main
from evaluation.inference_gap.gaps import Bounds, gaps, same_model
from inference.runs import create, load_run, write_run
from inference.settings.resolve import resolve

SMALL = ["model.bins=17", "model.z_dim=2", "data.hop=16", "data.trim_db=null", "data.corpus=folder"]
SMALL += ["data.sequence_frames=6", "guide.g_dim=4", "guide.x_g=[5]", "guide.g_z=[4]"]


def measured(elbo: float, iwae: float, smc: float | None, refined: float) -> Bounds:
    def both(value: float) -> torch.Tensor:
        return torch.tensor([value - 1.0, value + 1.0])

    filtered = None if smc is None else both(smc)
    refined_filtered = None if smc is None else both(smc - 0.5)
    return Bounds(both(elbo), both(iwae), filtered, both(refined), both(refined + 0.25), refined_filtered)


def test_gaps_are_to_the_best_bound_of_the_model() -> None:
    found = [measured(10.0, 11.0, 14.0, 12.0), measured(9.0, 10.0, None, 13.5)]
    shared = gaps(found, one_model=True)
    assert [g.best for g in shared] == ["smc", "smc"]
    assert [float(g.approximation.mean()) for g in shared] == pytest.approx([2.0, 0.5])
    assert [float(g.amortisation.mean()) for g in shared] == pytest.approx([2.0, 4.5])
    own = gaps(found, one_model=False)
    assert [g.best for g in own] == ["smc", "refined_iwae"]
    assert [float(g.approximation.mean()) for g in own] == pytest.approx([2.0, 0.25])


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three guides: two of one model, and one of a model with other weights."""
    import soundfile

    noise = np.random.default_rng(0)
    (tmp_path / "test" / "s").mkdir(parents=True)
    for k in range(2):
        soundfile.write(tmp_path / "test" / "s" / f"{k}.wav", 0.1 * noise.standard_normal(400), 16000)
    made = []
    for name, guide, seed in (("a", "all-markov", 0), ("b", "all-meanfield", 0), ("c", "past-markov", 1)):
        settings = resolve("dkf", guide, overrides=[*SMALL, f"data.root={tmp_path}", f"seed={seed}"])
        model, q = create(settings)
        model.fit_input([torch.linspace(0.1, 2.0, 20)[:, None].expand(20, 17)])
        write_run(tmp_path / name, settings, model, q)
        made.append(tmp_path / name)
    return made


def test_the_command_splits_what_guides_lose(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, report = tmp_path / "gaps.png", tmp_path / "gaps.json"
    effort = ["--sequences", "3", "--refinement-steps", "4", "--particles", "6", "--chunk", "4"]
    effort += ["--guide", "auto-normal"]
    assert main([*map(str, runs[:2]), *effort, "--picture", str(picture), "--json", str(report)]) == 0
    out = capsys.readouterr().out
    assert "the same model" in out and "ELBO auto-normal" in out and "exact" not in out.splitlines()[0]
    assert picture.stat().st_size > 5000
    both = json.loads(report.read_text())["runs"]
    assert list(both) == ["a", "b"]
    evidence = {run["metrics"]["log_evidence"]["mean"] for run in both.values()}
    assert len(evidence) == 1 and (tmp_path / "a" / "inference_gap.png").is_file()
    for name, run in both.items():
        written = json.loads((tmp_path / name / "inference_gap.json").read_text())
        assert written.pop("command").startswith("python -m evaluation.inference_gap ") and written.pop("arguments")
        assert run == written and run["same_model"] is True
        m = {key: value["mean"] for key, value in run["metrics"].items()}
        assert m["approximation_gap"] == pytest.approx(m["log_evidence"] - m["refined_elbo"], abs=1e-9)
        assert m["amortisation_gap"] == pytest.approx(m["refined_elbo"] - m["elbo"], abs=1e-9)
        assert m["auto_normal_gap"] == pytest.approx(m["log_evidence"] - m["auto_normal_elbo"], abs=1e-9)
        assert m["log_evidence"] >= max(m["iwae"], m["smc"], m["auto_normal_iwae"]) and run["num_sequences"] == 3
    assert [run["verdict"]["z"] for run in both.values()] == ["more", "fewer"]


def test_models_with_other_weights_are_told_apart(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    loaded = [load_run(run) for run in runs]
    assert same_model(loaded[:2]) and not same_model(loaded)
    assert main([str(runs[0]), str(runs[2]), "--sequences", "1", "--refinement-steps", "1", "--particles", "2"]) == 0
    out = capsys.readouterr().out
    assert "models or weights differ" in out and "auto-normal" not in out


def test_a_guide_with_a_point_for_mu2_is_said_to_have_one(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["model.bins=16", "data.frontend=log_magnitude", "model.h_dim=3", "guide.h_dim=3"]
    of_data = ["data.hop=16", "data.trim_db=null", "data.corpus=folder", f"data.root={tmp_path}"]
    settings = resolve("fhvae", overrides=[*sizes, *of_data])
    model, guide = create(settings)
    model.fit_input([torch.rand(20, 16)])
    write_run(tmp_path / "fhvae", settings, model, guide)
    assert main([str(tmp_path / "fhvae"), "--sequences", "1", "--refinement-steps", "1", "--particles", "2"]) == 0
    assert "log p(x, mu2)" in capsys.readouterr().out
    assert main([str(tmp_path / "fhvae"), "--guide", "auto-normal"]) == 2
    assert "shares latents" in capsys.readouterr().err
    assert "log p(x, mu2)" in json.loads((tmp_path / "fhvae" / "inference_gap.json").read_text())["note"]
    assert main([str(runs[0]), "--sequences", "1", "--refinement-steps", "1", "--particles", "2"]) == 0
    assert "mu2" not in capsys.readouterr().out


def test_other_data_and_idle_flags_are_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = resolve("dkf", overrides=[*SMALL, f"data.root={tmp_path}", "data.hop=8"])
    write_run(tmp_path / "d", settings, *create(settings))
    for arguments, message in (
        ([str(runs[0]), str(tmp_path / "d")], "differ in data.hop"),
        ([str(runs[0]), "--refinement-steps", "0"], "--refinement-steps 0"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
