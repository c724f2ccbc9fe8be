"""Start a training from settings, or resume one from its run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from corpora.registry import holds_frames
from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from dvae_pyro.program_names import program
from guides.fhvae import FHVAEGuide
from inference.checkpoints.files import load_checkpoint
from inference.checkpoints.state import TrainState, criterion, read, restore, save_best
from inference.objectives.elbo import Objective
from inference.runs import (
    create,
    default_folder,
    device_name,
    device_text,
    pick_device,
    pick_dtype,
    recreate,
    refuse_existing,
    take_model,
)
from inference.settings.resolve import load_run_settings, save_settings
from inference.settings.tree import Settings, TrainSettings
from inference.training.distributed import ALONE, World, join_processes
from inference.training.job import Job
from inference.training.loop import fit, measure_start, over, save
from inference.training.monitor.convergence import verdict_of
from inference.training.monitor.logs import MetricsLog, bytes_until
from inference.training.monitor.writers import logger_names
from inference.training.optimisers import build_optimiser
from inference.training.reading.batches import Data
from inference.training.reading.readers import StreamedData
from inference.training.reading.sources import read_data
from inference.training.recorded_step import RecordedStep, cuda_graphs, whole_multiple
from inference.training.scheduled_sampling import plan
from inference.training.schedules import kl_warmup, total_steps
from inference.training.sequence_table import adopt_table, slow_table

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from models.dvae import DVAE

__all__ = ["resume", "start"]

MOST_RECORDINGS = 16
"""The largest number of different sequence lengths that training steps are recorded for."""

Say = Callable[[str], None]


def start(settings: Settings, say: Say = print) -> Path:
    """Train a new run; returns its folder.

    Args:
        settings: the settings; with `settings.run` null, a new folder under `runs/` is created.
        say: called with each line to print.
    """
    settings.device = device_name(settings.device)
    with join_processes(settings.device) as world:
        return _start(settings, say if world.main else _silent, world)


def _start(settings: Settings, say: Say, world: World) -> Path:
    run = Path(settings.run) if settings.run else default_folder(settings)
    if world.main:
        refuse_existing(run)
    run = Path(world.broadcast_object(str(run)))
    settings.run = str(run)
    model, guide = create(settings)
    if settings.train.model_from is not None:
        say(f"the weights of the model are those of {take_model(model, settings)} and are not trained")
    job = _prepare(settings, run, model, guide, say, world)
    if settings.train.model_from is None:
        model.fit_input(item.x for item in job.train.sequences)
    job = _without_sample(job)
    world.broadcast_module(job.objective)
    if world.main:
        with disk_errors(run):
            run.mkdir(parents=True, exist_ok=True)
        save_settings(job.settings, run / "config.yaml")  # with the steps of the warm-up, which a longer run keeps
    torch.manual_seed(settings.seed)
    state = TrainState()
    with _log(world, run, loggers=_loggers(settings.train)) as log:
        save(job, state, log)
        _report(job, fit(job, state, log), say)
    return run


def _silent(line: str) -> None:
    """Print nothing, for processes other than the first."""


def _log(world: World, run: Path, **more: Any) -> AbstractContextManager[MetricsLog | None]:
    """The log of a run in the first process; None in the others."""
    return MetricsLog(run, **more) if world.main else nullcontext()


def _loggers(train: TrainSettings) -> list[str]:
    """The writers of `train.logger`, without TensorBoard where `train.tensorboard` is false."""
    return [name for name in logger_names(train.logger) if train.tensorboard or name != "tensorboard"]


def resume(run: Path, overrides: Sequence[str] = (), say: Say = print) -> Path:
    """Resume a run from its `last.pt` exactly where it stopped; `overrides` change its settings."""
    settings = load_run_settings(run, overrides)
    settings.device = device_name(settings.device)
    with join_processes(settings.device) as world:
        return _resume(run, settings, say if world.main else _silent, world)


def _resume(run: Path, settings: Settings, say: Say, world: World) -> Path:
    if settings.train.model_from != load_run_settings(run).train.model_from:
        raise UserError("train.model_from cannot change when a run is resumed. Train a new run with it.")
    pick_device(settings.device)
    last = run / "last.pt"
    if not last.is_file():
        raise UserError(f"{run} has no last.pt to resume from. Train a new run: python -m inference.svi --model ...")
    saved = load_checkpoint(last)
    state = read(saved)
    _refuse_finished(run, settings.train, state)
    model, guide = recreate(settings, saved, last)
    job = _without_sample(_prepare(settings, run, model, guide, say, world))
    if state.best is not None and state.best_of not in ("", criterion(settings)):
        say(f"note: the best weights were selected by {state.best_of}, from now on by {criterion(settings)}")
        state = replace(state, best=None, stale_epochs=0)
    restore(saved, settings, job.optimizer)
    if saved.get("data") not in (None, job.train.fingerprint):
        say("note: data or batches differ from those that the run was trained on so far; its epoch starts again")
        state = replace(state, batch=0, position=None)
    state = _own_position(state, world, say)
    if world.main:
        save_settings(job.settings, run / "config.yaml")  # with the steps of the warm-up, which a longer run keeps
    say(f"resuming from step {state.step}")
    keep = saved.get("metrics_bytes")
    keep = bytes_until(run / "metrics.jsonl", state.step) if keep is None else int(keep)
    with _log(world, run, keep=keep, step=state.step, loggers=_loggers(settings.train)) as log:
        if state.best_weights is not None:
            if world.main:
                save_best(run / "best.pt", settings, state)  # it may be newer than last.pt, or missing
        elif saved.get("data") is None:  # weights from another source
            state = measure_start(job, state, log)
        _report(job, fit(job, state, log), say)
    return run


def _own_position(state: TrainState, world: World, say: Say) -> TrainState:
    """A state read from a checkpoint, with the position of this process in the stream."""
    if state.position is None:
        return state
    if len(state.position) != world.size:
        say(f"note: {len(state.position)} processes shared the stream so far, now {world.size}; the epoch starts again")
        return replace(state, batch=0, position=None)
    return replace(state, position=state.position[world.rank])


def _refuse_finished(run: Path, train: TrainSettings, state: TrainState) -> None:
    reason = over(train, state)
    if reason:
        patience = f" train.patience={2 * state.stale_epochs}" if "improved" in reason else ""
        raise UserError(
            f"{run} is finished: {reason}.\n"
            f"To train on: python -m inference.svi --resume {run} train.steps={2 * state.step}{patience}"
        )


def _prepare(settings: Settings, run: Path, model: DVAE, guide: Guide, say: Say, world: World = ALONE) -> Job:
    """Read the corpus and build the objects of the training."""
    model.requires_grad_(settings.train.model_from is None)  # includes networks that the guide shares with the model
    objective = Objective.of(model, guide, settings.train)
    device, dtype = pick_device(settings.device), pick_dtype(settings.dtype)
    say(f"model {settings.model.name}, guide {settings.guide.name}: {_count(objective):,} parameters")
    say(f"device {device_text(settings.device)}, {settings.dtype}, {torch.get_num_threads()} threads; run {run}")
    if world.size > 1:
        say(f"{world.size} processes, each with its shard of every batch")
        _refuse_unsynchronised(settings, objective)
    with world.first_of_machine() if settings.data.cache else nullcontext():
        train, valid = read_data(settings, say, hierarchical=model.hierarchical, world=world)
    _refuse_other_data(world, train.fingerprint + valid.fingerprint)
    if isinstance(guide, FHVAEGuide) and isinstance(train, Data):
        adopt_table(guide, settings, train.members)
        say(f"table of mu2 for {len(train.members.files)} utterances, not counted above")
    optimizer = build_optimiser(settings.optim, objective)
    steps = total_steps(settings.train, train.batches_per_epoch)
    settings = replace(
        settings, train=replace(settings.train, kl_warmup_steps=kl_warmup(settings.train, train.batches_per_epoch))
    )
    about = "about " if isinstance(train, StreamedData) else ""
    say(f"{about}{steps} steps at most, {about}{train.batches_per_epoch} per epoch")
    if (
        isinstance(guide, FHVAEGuide)
        and isinstance(train, Data)
        and (slow := slow_table(settings, train.members, steps))
    ):
        say(slow)
    if settings.train.particles > 1:
        say(f"objective {settings.train.objective}, {settings.train.particles} particles")
    for line in plan(settings.train.scheduled_sampling, steps / train.batches_per_epoch, settings.evaluation.mode):
        say(line)
    captured = _recorded_step(settings, objective, device, train, world, say) if settings.train.cuda_graph else None
    return Job(run, settings, model, guide, objective, optimizer, train, valid, steps, device, dtype, world, captured)


def _without_sample(job: Job) -> Job:
    """The job without the sequences of a stream that only the statistics of the input are computed from."""
    return replace(job, train=replace(job.train, sequences=())) if isinstance(job.train, StreamedData) else job


def _recorded_step(
    settings: Settings,
    objective: Objective,
    device: torch.device,
    train: Data | StreamedData,
    world: World,
    say: Say,
) -> RecordedStep | None:
    """The recorded step, with one recording for each number of frames that a batch can have; None without a GPU.

    Raises:
        UserError: for more than `MOST_RECORDINGS` numbers of frames, and in several processes.
    """
    record = cuda_graphs(device)
    if record is None:
        say(f"note: train.cuda_graph=true has no effect on device={device}: steps are computed, with the same results")
        return None
    if world.size > 1:
        raise UserError(
            "train.cuda_graph=true does not support several processes. Set train.cuda_graph=false, or train without "
            "torchrun."
        )
    longest = settings.data.sequence_frames
    frames = {whole_multiple(len(item.x), settings.train.pad_frames, longest) for item in train.sequences}
    if len(frames) > MOST_RECORDINGS:
        raise UserError(
            f"train.cuda_graph=true records a step for each number of frames of a batch: {len(frames)} numbers here, "
            f"{min(frames)} to {max(frames)}, expected at most {MOST_RECORDINGS}. Pad batches to multiples: "
            f"train.pad_frames={-(-max(frames) // MOST_RECORDINGS)}."
        )
    say(f"steps are recorded once per shape of batch; batches have {len(frames)} different numbers of frames")
    return RecordedStep(objective, record)


def _refuse_unsynchronised(settings: Settings, objective: Objective) -> None:
    """Refuse random numbers that are not synchronised: processes share only the noise of latents."""
    if settings.train.objective == "fivo":
        raise UserError(
            "train.objective=fivo does not support several processes: resampling is not synchronised between them. "
            "Use iwae or dreg, or one process."
        )
    if any(isinstance(part, nn.Dropout) and part.p > 0 for part in objective.modules()):
        raise UserError(
            "dropout does not support several processes: its masks are not synchronised between them. Set it to 0, or "
            "train in one process."
        )


def _refuse_other_data(world: World, read: str) -> None:
    if world.broadcast_object(read) != read:
        raise UserError(
            "this process has read other data than the first one, or has other batches. All processes of a training "
            "need the same settings and the same files: every machine needs the whole corpus."
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _report(job: Job, state: TrainState, say: Say) -> None:
    """Print why training ended, the files of the run folder and the next command."""
    best = "" if state.best is None else f"; best validation bound {state.best:.4f} at step {state.best_step}"
    say(f"finished: {over(job.settings.train, state)}{best}")
    for line in verdict_of(job, state.step) if job.world.main else []:
        say(line)
    say(f"{job.run} holds best.pt, last.pt, metrics.jsonl and config.yaml")
    spectra = not holds_frames(job.settings.data) and job.settings.data.frontend != "waveform"
    evaluation = "resynthesis" if spectra else "likelihood"
    say(f"next: {program(f'evaluation.{evaluation}')} {job.run}")
