"""Metrics are read one batch late: a step waits for nothing, and what is not finite still stops the run unsaved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dvae_pyro.errors import UserError
from inference.checkpoints.files import load_checkpoint
from inference.settings.resolve import resolve
from inference.training import loop, steps
from inference.training.job import Job
from inference.training.monitor.metrics import Measured
from inference.training.session import start
from inference.training.signals import Stopped
from tests.cudnn import Asked, Read

DIVERGES = ("train.steps=50", "optim.lr=1e18", "train.checkpoint_every=200")


def train(run: Path, model: str, settings: list[str], *more: str) -> None:
    start(resolve(model, overrides=[*settings, f"run={run}", *more]), lambda line: None)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("vae", []),
        ("srnn", ["train.objective=analytic", "train.particles=2", "train.kl_warmup_steps=9"]),
        ("vrnn", ["train.objective=iwae", "train.particles=2"]),
        ("dkf", ["train.free_bits.threshold=0.1", "dtype=float64"]),
    ],
)
def test_a_training_step_waits_for_nothing(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, model: str, more: list[str]
) -> None:
    """Reading its metrics is one wait, for that step alone. The update is left out: on a CPU Adam reads its own count,
    which on a GPU its fused form does not.
    """
    seen: list[tuple[int, int]] = []
    reads: list[int] = []
    step, read = steps.train_step, Measured.read

    def watched(job: Job, *args: Any) -> Any:
        monkeypatch.setattr(job.optimizer, "step", lambda: None)
        with Asked() as asked, Read() as moved:
            done = step(job, *args)
        seen.append((asked.values, moved.tensors))
        return done

    def counted(measured: Measured, job: Job) -> Any:
        with Asked() as asked, Read() as moved:
            line = read(measured, job)
        reads.append(asked.values + moved.tensors)
        return line

    monkeypatch.setattr(loop, "train_step", watched)
    monkeypatch.setattr(Measured, "read", counted)
    train(tmp_path / "run", model, tiny, "train.steps=3", "optim.clip=0.1", *more)
    assert seen == [(0, 0)] * 3
    assert reads == [1] * (3 + 2), "of three training and two validation batches"


def test_a_step_is_read_when_the_next_one_is_queued_and_before_weights_are_used(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def told(name: str, what: Any, number: Any) -> Any:
        def call(*args: Any) -> Any:
            events.append(f"{name} {number(*args)}")
            return what(*args)

        return call

    monkeypatch.setattr(loop, "train_step", told("step", steps.train_step, lambda job, state, part: state.step + 1))
    monkeypatch.setattr(loop, "validate", told("validate", steps.validate, lambda job, state, stop: state.step))
    monkeypatch.setattr(loop, "save", told("save", loop.save, lambda job, state, log: state.step))

    def place(measured: Any, job: Any) -> str:
        return f"{measured.before['split']} {measured.before['step']}"

    monkeypatch.setattr(Measured, "read", told("read", Measured.read, place))
    train(tmp_path / "run", "vae", tiny, "train.steps=6", "train.checkpoint_every=2", "train.log_every=3")
    assert [event.replace("read train", "read") for event in events if "read valid" not in event] == [
        *("step 1", "step 2", "read 1", "read 2", "save 2", "step 3", "step 4", "read 3", "read 4", "validate 4"),
        *("save 4", "step 5", "step 6", "read 5", "read 6", "validate 6", "save 6", "save 6"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["split"], line["step"]) for line in lines] == [("train", 3), ("valid", 4), ("train", 6), ("valid", 6)]
    assert all(line["frames_per_second"] > 0 for line in lines)


@pytest.mark.parametrize("end", ["read", "failure", "signal"])
def test_what_is_not_finite_stops_the_run_with_its_own_step_and_saves_nothing(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Also where the step after it fails because of it, or a signal comes first."""
    with pytest.raises(UserError) as error:
        train(tmp_path / "at-once", "vae", tiny, *DIVERGES, "train.checkpoint_every=1")
    first = load_checkpoint(tmp_path / "at-once" / "last.pt")["step"] + 1
    step, stop = steps.train_step, steps.stop_together

    def fails(job: Job, state: Any, part: Any) -> Any:
        if end == "failure" and state.step == first:
            raise RuntimeError("a matrix is not positive definite")
        return step(job, state, part)

    def stops(job: Job, request: Any) -> None:
        if end == "signal" and ran == first:
            raise Stopped
        stop(job, request)

    ran = 0

    def counted(*args: Any) -> Any:
        nonlocal ran
        done = fails(*args)
        ran += 1
        return done

    monkeypatch.setattr(loop, "train_step", counted)
    monkeypatch.setattr(loop, "stop_together", stops)
    run = tmp_path / "late"
    with pytest.raises(UserError) as late:
        train(run, "vae", tiny, *DIVERGES)
    assert f"of step {first} (train) is not finite" in str(late.value)
    assert str(late.value) == str(error.value).replace("at-once", "late")
    saved = load_checkpoint(run / "last.pt")
    assert saved["step"] == 0 and all(torch.isfinite(v).all() for v in saved["model"].values())
    assert not (run / "best.pt").exists()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(1, first)]
