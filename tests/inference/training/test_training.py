"""The training loop: what it trains on, keeps, logs and refuses."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dvae_pyro.errors import UserError
from inference.checkpoints.files import load_checkpoint
from inference.checkpoints.state import TrainState
from inference.runs import load_run, write_run
from inference.settings.resolve import resolve
from inference.training.job import Job
from inference.training.monitor.logs import MetricsLog
from inference.training.session import resume, start
from inference.training.steps import validate
from tests.support.trainings import lines, quiet, same_weights, stop_after, train


def test_a_run_has_its_files_and_its_lines(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=6", "train.kl_warmup_steps=4", "train.log_every=2")
    assert {p.name for p in run.iterdir()} == {"config.yaml", "metrics.jsonl", "last.pt", "best.pt"}
    found = lines(run)
    place = [(line["split"], line["step"], line["epoch"]) for line in found]
    assert place == [("train", 2, 1), ("train", 4, 1), ("valid", 4, 1), ("train", 6, 2), ("valid", 6, 2)]
    for line in found:
        names = {"step", "epoch", "split", "loss", "elbo", "reconstruction", "kl_z", "lr", "beta"}
        assert set(line) == names | ({"grad_norm"} if line["split"] == "train" else set())
        assert line["elbo"] == pytest.approx(line["reconstruction"] - line["kl_z"], rel=1e-4)
    assert [line["beta"] for line in found if line["split"] == "train"] == [0.5, 1.0, 1.0]
    state = load_checkpoint(run / "last.pt")
    assert (state["step"], state["epoch"], state["batch"]) == (6, 1, 2)
    assert state["metrics_bytes"] == (run / "metrics.jsonl").stat().st_size


def test_on_a_cpu_one_thread_does_all(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one that computes, with OpenMP threads of its own, makes every step several times as long."""
    monkeypatch.setattr("inference.training.reading.batches.ThreadPoolExecutor", None)  # to start one is an error
    run = train(tmp_path / "run", tiny, "train.steps=4")
    assert len([line for line in lines(run) if line["split"] == "train"]) == 4


def test_the_loss_is_scaled_and_the_bound_is_not(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", [*tiny, "dtype=float64"], "train.steps=1", "train.beta=0", model="vae")
    line = lines(run)[0]
    assert line["beta"] == 0 and line["loss"] == pytest.approx(-line["reconstruction"], rel=1e-9)
    assert line["kl_z"] > 0 and line["elbo"] == pytest.approx(line["reconstruction"] - line["kl_z"], rel=1e-9)


def test_training_improves_the_validation_bound(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=60", "optim.lr=0.01", "optim.schedule=cosine")
    valid = [line["elbo"] for line in lines(run) if line["split"] == "valid"]
    assert max(valid) > valid[0]
    rates = [line["lr"] for line in lines(run) if line["split"] == "train"]
    assert rates[-1] == pytest.approx(0.0, abs=1e-9) and rates == sorted(rates, reverse=True)


def test_the_best_weights_are_kept_apart(tmp_path: Path, tiny: list[str]) -> None:
    tiny = [*tiny, "optim.lr=0.1", "train.kl_warmup_steps=7"]
    more = ("train.patience=3", "train.epochs=40", "train.checkpoint_every=7")
    run = train(tmp_path / "run", tiny, *more)
    valid = [line for line in lines(run) if line["split"] == "valid"]
    best, last = load_checkpoint(run / "best.pt"), load_checkpoint(run / "last.pt")
    top = max(valid, key=lambda line: line["elbo"])
    assert valid[-1]["epoch"] == top["epoch"] + 3 < 40, "training stopped 3 epochs after the best"
    assert (best["step"], best["epoch"], best["best"]) == (top["step"], top["epoch"], top["elbo"])
    assert not same_weights(best, last)
    # The same training stopped at the best epoch has just these weights.
    short = train(tmp_path / "short", tiny, f"train.steps={top['step']}")
    assert same_weights(best, load_checkpoint(short / "last.pt"))
    loaded = load_run(run)
    assert loaded.checkpoint_path.name == "best.pt" and not loaded.model.training
    assert same_weights({"model": loaded.model.state_dict(), "guide": loaded.guide.state_dict()}, best)
    with pytest.raises(UserError, match=" 3 epochs"):
        resume(run, say=quiet)


@pytest.mark.parametrize("model", ["vae", "dkf"])
@pytest.mark.parametrize("stop", [2, 5, 9])
def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, model: str, stop: int
) -> None:
    more = ("train.steps=11", "train.checkpoint_every=3", "optim.schedule=cosine", "optim.clip=1")
    whole = train(tmp_path / "whole", tiny, *more, model=model)
    with monkeypatch.context() as patch:
        stop_after(stop, patch)
        with pytest.raises(RuntimeError, match="power cut"):
            train(tmp_path / "cut", tiny, *more, model=model)
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as log:
        log.write('{"step": 99, "epo')  # and half a line
    torch.manual_seed(12345)
    resume(tmp_path / "cut", say=quiet)
    assert lines(tmp_path / "cut") == lines(whole)
    for name in ("last.pt", "best.pt"):
        a, b = load_checkpoint(whole / name), load_checkpoint(tmp_path / "cut" / name)
        assert same_weights(a, b) and a["best"] == b["best"] and a["step"] == b["step"]
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(tmp_path / "cut" / "last.pt")
    assert torch.equal(a["rng"], b["rng"])
    moments = zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(x[name], y[name]) for x, y in moments for name in x)


def test_a_finished_run_says_so_and_goes_on_with_more_steps(tmp_path: Path, tiny: list[str]) -> None:
    tiny = [*tiny, "train.kl_warmup_steps=7"]
    whole = train(tmp_path / "whole", tiny, "train.steps=10")
    run = train(tmp_path / "run", tiny, "train.steps=6")
    with pytest.raises(UserError, match=" 6 steps .*\n.*train.steps=12"):
        resume(run, say=quiet)
    resume(run, ["train.steps=10"], say=quiet)
    steps = [line for line in lines(run) if line["split"] == "train"]
    assert steps == [line for line in lines(whole) if line["split"] == "train"]
    assert load_run(run).settings.train.steps == 10, "the run's config says how it was trained"


def test_a_longer_run_keeps_the_warm_up_that_it_started_with(tmp_path: Path, tiny: list[str]) -> None:
    """Or the weight of the KL would fall from 1 where the run goes on."""
    run = train(tmp_path / "run", tiny, "train.steps=8")
    resume(run, ["train.steps=40"], say=quiet)
    assert [line["beta"] for line in lines(run) if line["split"] == "train"] == [0.5] + 39 * [1.0]
    assert load_run(run).settings.train.kl_warmup_steps == 2, "a quarter of the first 8 steps"


def test_the_learning_rate_decays_where_the_validation_bound_does_not_improve(tmp_path: Path, tiny: list[str]) -> None:
    """Weights that hardly move: the first of six epochs is the best; plateaus end after the third and the fifth."""
    still = [*tiny, "optim.lr=1e-20", "optim.plateau_epochs=2", "optim.warmup_steps=2"]
    run = train(tmp_path / "run", still, "train.steps=17")
    assert load_checkpoint(run / "last.pt")["plateaus"] == 1
    resume(run, ["train.steps=24"], say=quiet)
    rates = [line["lr"] for line in lines(run) if line["split"] == "train"]
    assert rates == pytest.approx([0.5e-20] + 11 * [1e-20] + 8 * [0.5e-20] + 4 * [0.25e-20], rel=1e-9, abs=0.0)
    assert load_checkpoint(run / "last.pt")["plateaus"] == 2


def test_resume_takes_new_optimiser_settings(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=3")
    resume(run, ["train.steps=5", "optim.lr=0.5", "optim.weight_decay=0.25", "optim.name=adamw"], say=quiet)
    group = load_checkpoint(run / "last.pt")["optimizer"]["param_groups"][0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.z_dim=3", r"last\.pt .*\(\d.*\(\d(.|\n)*model\.\*"),
        ("model.name=vae", r"model\.name=vae .*model\.name=dkf"),
        ("guide.name=all-markov", r"guide\.name=all-markov .*guide\.name=paper"),
        ("device=cuda:63", "'cuda:63'"),
        ("device=gpu", "'gpu'"),
        ("train.objective=elbow", r"train\.objective.*'elbow'.*'elbo'"),
    ],
)
def test_resume_refuses_what_does_not_fit(tmp_path: Path, tiny: list[str], override: str, message: str) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=1")
    before = (run / "config.yaml").read_text()
    with pytest.raises(UserError, match=message):
        resume(run, ["train.steps=2", override], say=quiet)
    assert (run / "config.yaml").read_text() == before


def test_a_run_is_not_trained_over(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=1")
    with pytest.raises(UserError, match="--resume"):
        train(run, tiny, "train.steps=1")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--run .*file"):
        train(tmp_path / "file", tiny, "train.steps=1")
    (run / "last.pt").unlink()
    with pytest.raises(UserError, match="last.pt"):
        resume(run, say=quiet)
    (run / "best.pt").unlink()
    with pytest.raises(UserError, match="best.pt or last.pt"):
        load_run(run)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path, tiny: list[str]) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError) as refusal:
        train(run, tiny, "train.steps=50", "train.checkpoint_every=1", "optim.lr=1e18", model="vae")
    message = str(refusal.value)
    state = load_checkpoint(run / "last.pt")
    assert f"of step {state['step'] + 1} (train) is not finite" in message
    assert "train/speaker" in message and str(run / "last.pt") in message and "--resume" in message
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert lines(run)[-1]["step"] == state["step"]


def test_a_gradient_that_is_not_finite_stops_too(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda grads: torch.tensor(float("inf")))
    with pytest.raises(UserError, match=r"gradient .* 1 \(train\) .*grad_norm"):
        train(tmp_path / "run", tiny, "train.steps=2")


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, replace, saved = tmp_path / "run", os.replace, []

    def full(source: Path, target: Path) -> None:
        saved.append(target)
        if len(saved) > 3:  # config.yaml, last.pt of step 0 and of step 2
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"last\.pt.*No space left on device"):
        train(run, tiny, "train.steps=9", "train.checkpoint_every=2")
    assert load_checkpoint(run / "last.pt")["step"] == 2
    assert not list(run.glob("*.tmp"))


def _job(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Job, TrainState]:
    """The parts of a fresh training, caught before the loop starts."""
    caught: list[tuple[Any, ...]] = []

    def catch(*args: Any) -> Any:
        caught.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr("inference.training.session.fit", catch)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "job", tiny, "train.steps=9")
    return caught[0][0], caught[0][1]


def test_validation_leaves_no_trace(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    job, state = _job(tmp_path, tiny, monkeypatch)
    rng = torch.get_rng_state()
    weights = {name: value.clone() for name, value in job.objective.state_dict().items()}
    one, two = validate(job, state), validate(job, state)
    assert torch.equal(torch.get_rng_state(), rng)
    assert job.objective.training and all(p.grad is None for p in job.objective.parameters())
    assert all(torch.equal(weights[name], value) for name, value in job.objective.state_dict().items())
    del one["frames_per_second"], two["frames_per_second"]
    assert one == two, "the noise of validation is always the same"


def test_validation_weighs_every_real_frame_alike(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [*tiny, "data.sequence_frames=null", "train.batch_size=1", "dtype=float64"]
    job, state = _job(tmp_path, more, monkeypatch)
    torch.manual_seed(job.settings.seed)
    job.objective.eval()
    total, frames = 0.0, 0
    with torch.no_grad():
        for item in job.valid.sequences:
            bound = job.objective(item.x[:, None].double(), torch.tensor([len(item.x)]))
            total, frames = total + float(bound.terms.elbo.sum()), frames + len(item.x)
    assert validate(job, state)["elbo"] == pytest.approx(total / frames, rel=1e-9)


def test_events_hold_the_same_numbers(tmp_path: Path, tiny: list[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path / "run", [*tiny, "train.tensorboard=true"], "train.steps=3")
    events = EventAccumulator(str(run))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("train/elbo")}
    expected = {line["step"]: line["elbo"] for line in lines(run) if line["split"] == "train"}
    assert found == pytest.approx(expected, rel=1e-6)


def test_other_data_begins_the_epoch_anew(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=3")
    said: list[str] = []
    resume(run, ["train.steps=5", "train.batch_size=20"], say=said.append)
    assert any(line.startswith("note: data or batches differ") for line in said)
    place = [(line["split"], line["epoch"]) for line in lines(run)]
    assert place[3:] == [("valid", 1), ("train", 1), ("valid", 1), ("train", 2), ("valid", 2)]


def test_the_best_weights_can_stand_in_for_a_lost_checkpoint(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.steps=6")
    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last.pt .*\(1000 bytes\).*\n.*best.pt"):
        resume(run, ["train.steps=9"], say=quiet)
    best = load_checkpoint(run / "best.pt")["step"]
    os.replace(run / "best.pt", run / "last.pt")
    resume(run, ["train.steps=9"], say=quiet)
    assert [line["step"] for line in lines(run) if line["split"] == "train"] == list(range(1, 10))
    assert best < 9 and load_run(run).checkpoint_path.name == "best.pt"


def test_epochs_end_training_too(tmp_path: Path, tiny: list[str]) -> None:
    run = train(tmp_path / "run", tiny, "train.epochs=2")
    assert [line["step"] for line in lines(run) if line["split"] == "valid"] == [4, 8]
    with pytest.raises(UserError, match=" 2 epochs"):
        resume(run, say=quiet)


def test_weights_made_elsewhere_stay_the_best_until_training_beats_them(tmp_path: Path, tiny: list[str]) -> None:
    trained = resolve("vae", overrides=[*tiny, "train.steps=40"])
    trained.run = str(tmp_path / "trained")
    start(trained, say=quiet)
    good = load_run(tmp_path / "trained")
    write_run(tmp_path / "given", good.settings, good.model, good.guide)
    resume(tmp_path / "given", ["train.steps=1", "optim.lr=0.1", "optim.clip=null"], say=quiet)
    best, last = (load_checkpoint(tmp_path / "given" / name)["model"] for name in ("best.pt", "last.pt"))
    assert all(torch.equal(best[name], value) for name, value in good.model.state_dict().items())
    assert any(not torch.equal(last[name], value) for name, value in best.items())
    first = json.loads((tmp_path / "given" / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["split"], first["step"]) == ("valid", 0)


def test_a_log_that_cannot_be_opened_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(names: list[str], run: Path, step: int) -> None:
        raise UserError("no events")

    monkeypatch.setattr("inference.training.monitor.logs.open_writers", refuse)
    with pytest.raises(UserError, match="no events") as error:
        MetricsLog(tmp_path)
    frames = [entry.frame.f_locals.get("self") for entry in error.traceback]
    (log,) = [value for value in frames if isinstance(value, MetricsLog)]
    assert log._stream.closed
