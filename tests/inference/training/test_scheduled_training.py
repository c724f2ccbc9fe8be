"""Scheduled sampling in training: schedules in closed form, what is logged and validated, patience, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dvae_pyro.errors import UserError
from inference.checkpoints.files import load_checkpoint
from inference.handlers.free_running import free_running
from inference.runs import load_run
from inference.settings.resolve import load_run_settings, resolve
from inference.settings.tree import ScheduledSamplingSettings
from inference.training.job import Job
from inference.training.scheduled_sampling import own_output_probability, plan, settled, training_handler
from inference.training.session import resume, start
from inference.training.steps import train_step, validate

SECTION = "train.scheduled_sampling"
SMALL = (
    "model.x_h=[6]",
    "model.h_dim=5",
    "model.hz_z=[]",
    "model.hz_x=[]",
    "guide.hx_g=[]",
    "guide.g_dim=5",
    "guide.gz_z=[]",
    "data.sequence_frames=10",
    "train.batch_size=50",
)  # 100 sequences of 10 frames: 2 batches per epoch


def quiet(line: str) -> None:
    """Where the tests send what a run says."""


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_second", "data_wait")} for line in found]


def train(run: Path, tiny: list[str], *more: str) -> Path:
    return start(resolve("srnn", overrides=[*tiny, *SMALL, f"run={run}", *more]), quiet)


@pytest.mark.parametrize("start_epoch", [0, 3])
def test_schedules_are_their_closed_forms(start_epoch: int) -> None:
    linear = ScheduledSamplingSettings("linear", 0.8, start_epoch, end_epoch=start_epoch + 7)
    staircase = ScheduledSamplingSettings("staircase", 0.8, start_epoch, epochs_per_step=4)
    for past in range(-start_epoch, 60):
        epoch = start_epoch + past
        straight = 0.0 if past < 0 else 1.0 if past > 7 else past / 7
        assert own_output_probability(linear, epoch) == pytest.approx(0.8 * straight)
        stairs = 0.0 if past < 0 else min(1.0, 0.1 * (1 + past // 4))
        assert own_output_probability(staircase, epoch) == pytest.approx(0.8 * stairs)
        for settings in (linear, staircase):  # settled is just where it stands still
            ahead = {own_output_probability(settings, later) for later in range(epoch, 200)}
            assert settled(settings, epoch) == (len(ahead) == 1)
    constant = ScheduledSamplingSettings("constant", 0.25, start_epoch)
    assert own_output_probability(constant, 0) == 0.25 and settled(constant, 0)
    none = ScheduledSamplingSettings()
    assert own_output_probability(none, 99) == 0.0 and settled(none, 0)


def test_the_handler_has_the_settings() -> None:
    settings = ScheduledSamplingSettings("linear", end_epoch=4, mix="h", coin="batch")
    handler: Any = training_handler(settings, 1)
    assert (handler.p, handler.mix, handler.coin) == (0.25, "h", "batch")


def test_a_run_logs_its_probability_and_validates_as_it_will_be_evaluated(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, f"{SECTION}=linear", f"{SECTION}.end_epoch=2", "train.epochs=4")
    found = lines(run)
    assert [(line["split"], line["epoch"], line["ss_prob"]) for line in found] == [
        (split, epoch, p)
        for epoch, p in ((1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0))
        for split in ("train", "train", "valid")
    ]
    assert all(line["mode"] == "gen" for line in found if line["split"] == "valid")
    assert load_run(run).settings.evaluation.mode == "gen"


@pytest.mark.parametrize("mode", ["gen", "gt"])
def test_validation_is_the_bound_in_the_mode_of_evaluation(
    tmp_path: Path, tiny: list[str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[Any] = []

    def catch(*args: Any) -> Any:
        caught.extend(args)
        raise KeyboardInterrupt

    monkeypatch.setattr("inference.training.session.fit", catch)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", tiny, f"{SECTION}=linear", f"evaluation.mode={mode}", "train.epochs=2")
    job, state = caught[0], caught[1]
    bounds = {}
    for name in ("gen", "gt"):
        total, frames = 0.0, 0
        torch.manual_seed(job.settings.seed)
        for index in job.valid.batches.epoch(0):
            batch = job.valid.batch(index)
            with torch.no_grad():
                if name == "gen":
                    with free_running():
                        bound = job.objective(batch.x, batch.lengths)
                else:
                    bound = job.objective(batch.x, batch.lengths)
            total, frames = total + float(bound.terms.elbo.sum()), frames + int(batch.lengths.sum())
        bounds[name] = total / frames
    assert validate(job, state)["elbo"] == pytest.approx(bounds[mode], rel=1e-6)
    assert bounds["gen"] != pytest.approx(bounds["gt"], rel=1e-4)


def test_patience_begins_where_the_schedule_ends(tmp_path: Path, tiny: list[str]) -> None:
    more = ("train.patience=2", "train.epochs=30", "optim.lr=0")  # no epoch improves on the first
    plain = train(tmp_path / "plain", tiny, *more)
    assert lines(plain)[-1]["epoch"] == 3
    run = train(tmp_path / "run", tiny, *more, f"{SECTION}=linear", f"{SECTION}.end_epoch=4")
    assert lines(run)[-1]["epoch"] == 6  # the fifth is the first at probability 1


@pytest.mark.parametrize("mix", ["x", "h"])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, stop: int, mix: str
) -> None:
    sampling = (
        f"{SECTION}=staircase",
        f"{SECTION}.epochs_per_step=1",
        f"{SECTION}.mix={mix}",
    )
    more = ("train.steps=7", "train.checkpoint_every=2", *sampling)
    whole = train(tmp_path / "whole", tiny, *more)
    done: list[int] = []

    def counted(job: Job, *args: Any) -> Any:
        if len(done) == stop:
            raise RuntimeError("power cut")
        done.append(1)
        return train_step(job, *args)

    with monkeypatch.context() as patch:
        patch.setattr("inference.training.loop.train_step", counted)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "cut", tiny, *more)
    torch.manual_seed(12345)
    resume(tmp_path / "cut", say=quiet)
    assert lines(tmp_path / "cut") == lines(whole)
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt")
    assert torch.equal(a["rng"], b["rng"]) and a["stale_epochs"] == b["stale_epochs"]
    assert all(torch.equal(a[part][name], b[part][name]) for part in ("model", "guide") for name in a[part])


def test_without_a_schedule_nothing_changes(tmp_path: Path, tiny: list[str]) -> None:
    """At probability 0 the weights are those of teacher forcing, to the last bit; and no line says a word of it."""
    plain = train(tmp_path / "plain", tiny, "train.steps=3")
    zero = (f"{SECTION}=constant", f"{SECTION}.probability=0")
    at_zero = train(tmp_path / "zero", tiny, "train.steps=3", *zero)
    a, b = load_checkpoint(plain / "last.pt"), load_checkpoint(at_zero / "last.pt")
    assert all(torch.equal(a[part][name], b[part][name]) for part in ("model", "guide") for name in a[part])
    assert not {"ss_prob", "mode"} & {key for line in lines(plain) for key in line}


def test_events_take_what_is_no_number_in_their_stride(tmp_path: Path, tiny: list[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path / "run", tiny, "train.tensorboard=true", "train.steps=2", f"{SECTION}=staircase")
    events = EventAccumulator(str(run))
    events.Reload()
    assert [event.value for event in events.Scalars("valid/ss_prob")] == pytest.approx([0.1])


def test_the_mode_of_evaluation_follows_unless_it_is_named(tmp_path: Path, tiny: list[str]) -> None:
    def mode(*overrides: str, config: Path | None = None) -> str:
        return resolve("srnn", config_path=config, overrides=overrides).evaluation.mode

    config = tmp_path / "row.yaml"
    config.write_text("train: {scheduled_sampling: {schedule: linear}}\n")
    short = tmp_path / "short.yaml"
    short.write_text("train: {scheduled_sampling: linear}\nevaluation: {mode: gt}\n")
    assert (mode(), mode(f"{SECTION}=linear"), mode(config=config)) == ("gt", "gen", "gen")
    assert (mode(f"{SECTION}=linear", "evaluation.mode=gt"), mode(config=short)) == ("gt", "gt")
    assert mode(f"{SECTION}=null", config=config) == "gt"
    assert resolve("srnn", config_path=short).train.scheduled_sampling.schedule == "linear"
    run = train(tmp_path / "run", tiny, "train.steps=1")
    assert load_run_settings(run).evaluation.mode == "gt"
    assert load_run_settings(run, [f"{SECTION}=linear"]).evaluation.mode == "gen"
    assert load_run_settings(run, [f"{SECTION}=linear", "evaluation.mode=gt"]).evaluation.mode == "gt"


@pytest.mark.parametrize("model", ["vae", "dkf", "rvae", "dsae"])
def test_models_that_never_look_back_are_refused(model: str) -> None:
    with pytest.raises(UserError, match=f"{SECTION}.schedule=linear .*model '{model}'.*\n.*storn, vrnn or srnn"):
        resolve(model, overrides=[f"{SECTION}=linear"])
    assert resolve(model, overrides=[f"{SECTION}=null"]).train.scheduled_sampling.schedule is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["=lineal"], r"\.schedule.*constant.*linear.*staircase.*'lineal'|\.schedule.*'lineal'.*'linear'"),
        ([".mix=z"], r"\.mix.*'z'"),
        ([".mix=both"], r"\.mix.*'both'"),
        ([".coin=word"], r"\.coin.*'word'"),
        ([".end_epochs=3"], r"'train\.scheduled_sampling\.end_epochs'.*'train\.scheduled_sampling\.end_epoch'"),
        (["=linear", ".end_epoch=0"], r"end_epoch=0\b.*start_epoch=0"),
        (["=linear", ".start_epoch=-1"], r"start_epoch=-1"),
        (["=staircase", ".epochs_per_step=0"], r"epochs_per_step=0"),
        (["=constant", ".probability=1.5"], r"probability=1\.5"),
        (["=constant", ".probability=nan"], r"probability=nan"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("srnn", overrides=[SECTION + override for override in overrides])


def test_the_plan_is_told() -> None:
    linear = ScheduledSamplingSettings("linear", end_epoch=10)
    (line,) = plan(linear, 20.0, "gen")
    assert "probability 0 in epoch 1, 1 from epoch 11 on" in line and "validated on the model's own output" in line
    line, note = plan(linear, 5.5, "gt")
    assert "validated on the true past" in line and note == "note: training ends in epoch 6, at probability 0.5"
    (line,) = plan(ScheduledSamplingSettings("constant", 0.5), 5.0, "gen")
    assert "probability 0.5; validated" in line
    assert plan(ScheduledSamplingSettings(), 5.0, "gt") == []
