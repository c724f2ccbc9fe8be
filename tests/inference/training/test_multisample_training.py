"""Training on bounds of several draws: what is logged, kept as best, resumed and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dvae_pyro.errors import UserError
from inference.checkpoints.files import load_checkpoint
from inference.settings.resolve import load_run_settings, resolve, save_settings
from inference.settings.validation import check_limits
from inference.training.session import resume
from tests.support.trainings import lines, quiet, same_weights, stop_after, train

OBJECTIVES = {"iwae": "iwae", "dreg": "iwae", "fivo": "fivo"}
"""The multi-sample objectives, and what metrics.jsonl calls their bounds."""
SHORT = ("data.sequence_frames=4", "train.batch_size=64", "train.tensorboard=false")
"""Four batches of short sequences per epoch: a filter takes its time for every frame."""

MIX = "train.scheduled_sampling.mix"


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_the_bound_that_is_trained_tells_the_best_weights(tmp_path: Path, tiny: list[str], objective: str) -> None:
    more = (f"train.objective={objective}", "train.particles=4", "train.steps=12", "optim.lr=0.05", "dtype=float64")
    found = lines(train(tmp_path / "run", tiny, *SHORT, *more, "train.kl_warmup_steps=6"))
    bound = OBJECTIVES[objective]
    for line in found:
        assert line["elbo"] == pytest.approx(line["reconstruction"] - line["kl_z"], rel=1e-9)
        assert line["beta"] < 1 or line["loss"] == pytest.approx(-line[bound], rel=1e-9)
        assert line["beta"] == 1 or line["loss"] != pytest.approx(-line[bound], rel=1e-9)
    valid = [line for line in found if line["split"] == "valid"]
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert (best["best"], best["step"]) == max((line[bound], line["step"]) for line in valid)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["best_of"] == f"{bound} of 4 particles"


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    more = (f"train.objective={objective}", "train.particles=3", "train.steps=7", "train.checkpoint_every=3", *SHORT)
    train(tmp_path / "whole", tiny, *more)
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "cut", tiny, *more)
    torch.manual_seed(12345)
    resume(tmp_path / "cut", say=quiet)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    states = [load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut")]
    assert same_weights(*states) and torch.equal(states[0]["rng"], states[1]["rng"])


def test_another_bound_is_no_measure_for_the_best_so_far(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=4", "train.objective=iwae", "train.particles=8")
    said: list[str] = []
    resume(run, ["train.steps=8", "train.objective=elbo", "train.particles=1"], say=said.append)
    assert "note: the best weights were selected by iwae of 8 particles, from now on by elbo" in said
    found = [line for line in lines(run) if line["split"] == "valid" and line["step"] > 4]
    best = load_checkpoint(run / "best.pt")
    assert (best["best"], best["step"]) == max((line["elbo"], line["step"]) for line in found)
    said.clear()
    resume(run, ["train.steps=9"], say=said.append)
    assert not any("told by" in line for line in said)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.particles=0"], "train.particles=0: expected at least 1"),
        (["train.objective=iwae"], "train.objective=iwae with train.particles=1"),
        (["train.objective=fivo"], "train.objective=fivo with train.particles=1"),
        (["train.objective=dreg", "train.beta_sites.z=2"], "does not support train.beta_sites"),
        (["train.objective=dreg", "train.scheduled_sampling=linear"], "Use train.objective=iwae"),
        (
            ["train.objective=fivo", "train.particles=2", "train.scheduled_sampling=linear", f"{MIX}=h"],
            "train.objective=fivo draws latents frame by frame",
        ),
        (["optim.schedule=cosine", "optim.gamma=0.2"], "optim.gamma=0.2 has no effect with optim.schedule=cosine. Add"),
        (["optim.decay_steps=9"], "no effect with optim.schedule=plateau. Add optim.schedule=exponential or cosine."),
        (["optim.schedule=constant", "optim.min_lr=1e-5"], "optim.min_lr=1e-05 has no effect with optim.schedule=con"),
        (["optim.schedule=cosine", "optim.plateau_epochs=3"], "optim.plateau_epochs=3 has no effect with"),
    ],
)
def test_what_would_say_nothing_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        resolve("vrnn", overrides=overrides)
    assert message in str(refusal.value)


def test_settings_of_a_schedule_need_their_schedule_wherever_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "row.yaml").write_text("optim: {decay_steps: 9}\n")
    with pytest.raises(UserError, match=r"optim\.decay_steps=9"):
        resolve("vae", config_path=tmp_path / "row.yaml")
    exponential = ["optim.schedule=exponential"]
    assert resolve("vae", config_path=tmp_path / "row.yaml", overrides=exponential).optim.decay_steps == 9
    settings = resolve("vae", overrides=[*exponential, "optim.decay_steps=9"])
    save_settings(settings, tmp_path / "config.yaml")
    assert load_run_settings(tmp_path, ["optim.schedule=constant"]).optim.schedule == "constant"
    check_limits(settings)


def test_without_its_schedule_a_run_is_evaluated_on_the_true_past_again(tmp_path: Path) -> None:
    save_settings(resolve("vrnn", overrides=["train.scheduled_sampling=linear"]), tmp_path / "config.yaml")
    assert load_run_settings(tmp_path).evaluation.mode == "gen"
    assert load_run_settings(tmp_path, ["train.scheduled_sampling=null"]).evaluation.mode == "gt"
    assert (
        load_run_settings(tmp_path, ["train.scheduled_sampling=null", "evaluation.mode=gen"]).evaluation.mode == "gen"
    )
    assert load_run_settings(tmp_path, ["train.scheduled_sampling=constant"]).evaluation.mode == "gen"
