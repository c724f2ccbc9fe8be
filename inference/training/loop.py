"""The training loop: steps, validation, early stopping, checkpoints.

A run is a sequence of `TrainState`s. Each step is a function of the state before it, the weights and torch's
generators, all of which a checkpoint holds; a run that was stopped or killed therefore resumes exactly. Several
processes (`inference.training.distributed`) take each step together, each with its shard of the batch; only the first
process writes, to `Job.run`, by `MetricsLog` and `save`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pyro
import torch
from torch import Tensor

from inference.checkpoints.files import save_checkpoint, snapshot
from inference.checkpoints.state import TrainState, criterion, pack, save_best
from inference.handlers.auxiliary_cost import auxiliary_cost
from inference.handlers.discriminative import discriminative_handler
from inference.handlers.free_bits import free_bits
from inference.handlers.given_noise import given_noise
from inference.handlers.known_shape import known_shape
from inference.handlers.noise import BatchNoise
from inference.objectives.elbo import BOUNDS
from inference.settings.tree import TrainSettings
from inference.training.batches import Shard
from inference.training.convergence import epoch_line
from inference.training.job import Job
from inference.training.logs import MetricsLog, ProgressBar, Speed
from inference.training.metrics import Line, per_frame, refuse_non_finite
from inference.training.optimisers import gradients
from inference.training.reading.readers import Reader, StreamedData, reader_of
from inference.training.recorded_step import lengthened, loss_and_gradients, whole_multiple
from inference.training.scheduled_sampling import figures, settled, training_handler, validation_handler
from inference.training.schedules import free_bits_threshold, kl_weight, learning_rate
from inference.training.sequence_table import training_rows, validation_rows
from inference.training.signals import Stopped, StopRequest, stop_on_signals

__all__ = ["fit", "measure_start", "over", "save", "train_step", "validate"]


def fit(job: Job, state: TrainState, log: MetricsLog | None) -> TrainState:
    """Train until it is `over`; on a signal, save and raise `Stopped`. A process without a log writes nothing."""
    every = job.settings.train.checkpoint_every
    reader = reader_of(job.train, state, job.world, job.device)
    speed = Speed()
    bar = ProgressBar(job.total_steps, state.step, shown=job.world.main)
    with bar, stop_on_signals() as stop, pyro.validation_enabled(False):
        try:
            while not over(job.settings.train, state) or _validation_due(job, state, reader):
                _stop_together(job, stop)
                if _validation_due(job, state, reader):
                    for remark in reader.remarks() if reader.finished else []:
                        bar.say(remark)
                    line = validate(job, state, stop)
                    _write(log, line)
                    state = _after_validation(job, state, _trained_bound(job, line), finished=reader.finished)
                    bar.epoch(epoch_line(state, line, _trained_bound(job, line), job.settings.train))
                    if reader.finished:
                        reader.close()
                        reader = reader_of(job.train, state, job.world, job.device)
                    speed.restart()
                else:
                    with speed.waiting():
                        part = next(reader)
                    line, frames = train_step(job, state, part)
                    state = replace(state, step=state.step + 1, batch=state.batch + 1, position=reader.position)
                    speed.add(frames)
                    if state.step % job.settings.train.log_every == 0:
                        _write(log, {**line, **speed.lap()})
                    bar.advance(f"loss {line['loss']:.4g}, {speed.rate:,.0f} frames/s")
                if state.step % every == 0 and not _validation_due(job, state, reader):
                    save(job, state, log)
            save(job, state, log)
        except Stopped:
            save(job, state, log)
            raise Stopped(
                f"Stopped at step {state.step} and saved {job.run / 'last.pt'}.\n"
                f"Resume with: python -m inference.svi --resume {job.run}"
            ) from None
        finally:
            reader.close()
    return state


def _write(log: MetricsLog | None, line: Line) -> None:
    if log is not None:
        log.write(line)


def _stop_together(job: Job, stop: StopRequest) -> None:
    """Raise `Stopped` in all processes, between the same two steps, if any of them has received a signal."""
    if job.world.any(stop.requested):
        raise Stopped


def measure_start(job: Job, state: TrainState, log: MetricsLog | None) -> TrainState:
    """Validate weights from another source, so that they remain the best until training improves on them."""
    with pyro.validation_enabled(False):
        line = validate(job, state)
    _write(log, line)
    return _after_validation(job, state, _trained_bound(job, line), finished=False)


def over(train: TrainSettings, state: TrainState) -> str:
    """The reason why training is over; an empty string if it is not."""
    if train.steps is not None and state.step >= train.steps:
        return f"all {train.steps} steps are done"
    if train.epochs is not None and state.epoch >= train.epochs:
        return f"all {train.epochs} epochs are done"
    if train.patience is not None and state.stale_epochs >= train.patience:
        return f"the validation bound has not improved for {state.stale_epochs} epochs"
    return ""


def _validation_due(job: Job, state: TrainState, reader: Reader) -> bool:
    """Whether to validate now: at the end of each epoch and after the last step."""
    limit = job.settings.train.steps
    pause = reader.finished or (limit is not None and state.step >= limit)
    return pause and state.validated != state.step


def train_step(job: Job, state: TrainState, part: Shard) -> tuple[Line, int]:
    """One update of the weights on one batch; returns its metrics and the number of real frames."""
    step = state.step + 1
    batch, frames = part.batch, part.frames
    rate = learning_rate(job.settings.optim, step, job.total_steps)
    beta, betas = _kl_weights(job, step)
    for group in job.optimizer.param_groups:
        group["lr"] = rate
    job.optimizer.zero_grad(set_to_none=True)
    rows, train = training_rows(job, state, part.indices), job.settings.train
    spared = free_bits_threshold(train.free_bits, step)
    scheduled, discriminative = (
        training_handler(train.scheduled_sampling, state.epoch),
        discriminative_handler(train.discriminative),
    )
    with scheduled, discriminative, _noise(job, part), _free_bits(job, spared), auxiliary_cost(job.guide.auxiliary):
        padded = whole_multiple(len(batch.x), train.pad_frames, job.settings.data.sequence_frames)
        x = _to_device(lengthened(batch.x, padded), job)
        compute = job.captured or partial(loss_and_gradients, job.objective, weight=part.weight)
        bound = compute(x, batch.lengths, frames, beta=beta, beta_sites=betas, rows=rows)
    parameters = [p for p in job.objective.parameters() if p.grad is not None]
    job.world.sum_gradients(parameters)
    for frozen in job.model.frozen_at(step):
        if frozen.grad is not None:
            frozen.grad.zero_()
    norm = torch.nn.utils.get_total_norm(gradients(parameters))
    line: Line = {"step": step, "epoch": state.epoch + 1, "split": "train"}
    line |= per_frame(job, bound, frames, part.weight, grad_norm=norm)
    norm_value = line.pop("grad_norm")
    line |= {"lr": rate, "beta": beta, **_named(betas), **({} if spared is None else {"free_bits": spared})}
    line |= {**figures(job.settings.train.scheduled_sampling, state.epoch), "grad_norm": norm_value}
    refuse_non_finite(job, line, batch, bound)
    if job.settings.optim.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, job.settings.optim.clip, norm)
    job.optimizer.step()
    return line, frames


def validate(job: Job, state: TrainState, stop: StopRequest | None = None) -> Line:
    """The bound on the validation split, always with the same noise; the state of training is not changed."""
    beta, betas = _kl_weights(job, max(1, state.step))
    sampling, mode = job.settings.train.scheduled_sampling, job.settings.evaluation.mode
    totals: dict[str, float] = {}
    frames, started = 0, time.perf_counter()
    with _undisturbed(job), validation_handler(sampling, mode):
        values = validation_rows(job, job.valid)
        for index in job.valid.batches.epoch(0):
            if stop is not None:
                _stop_together(job, stop)
            part = job.valid.shard(index, job.world)
            batch = part.batch
            rows = None if values is None else job.valid.members.rows(part.indices, **values)
            x = _to_device(batch.x, job)
            with _noise(job, part), known_shape.of(x, batch.lengths):
                bound = job.objective(x, batch.lengths, beta=beta, beta_sites=betas, rows=rows)
            sums = per_frame(job, bound, 1, part.weight)
            place: Line = {"step": state.step, "epoch": _epoch_number(state), "split": "valid"}
            refuse_non_finite(job, {**place, **sums}, batch, bound)
            totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
            frames += part.frames
    line = {**place, **{name: value / frames for name, value in totals.items()}}
    line |= {
        "lr": learning_rate(job.settings.optim, max(1, state.step), job.total_steps),
        "beta": beta,
        **_named(betas),
    }
    line |= figures(sampling, state.epoch, mode=mode)
    return {**line, "frames_per_second": frames / (time.perf_counter() - started)}


def _kl_weights(job: Job, step: int) -> tuple[float, dict[str, float]]:
    """The weight of the KL at a step, and the weights of single latents in `train.beta_sites`."""
    train = job.settings.train
    return kl_weight(train, step), {site: kl_weight(train, step, site) for site in train.beta_sites}


def _free_bits(job: Job, threshold: float | None) -> AbstractContextManager[object]:
    """The handler of free bits for training; validation has none."""
    settings = job.settings.train.free_bits
    return nullcontext() if threshold is None else free_bits(threshold, settings.mode, settings.grouping)


def _noise(job: Job, part: Shard) -> AbstractContextManager[object]:
    """The handler that draws the random numbers of a single process for the whole batch."""
    return nullcontext() if job.world.size == 1 else given_noise(BatchNoise(part.places, part.sequences))


def _named(betas: dict[str, float]) -> Line:
    return {f"beta_{site}": weight for site, weight in betas.items()}


def _trained_bound(job: Job, line: Line) -> float:
    """The trained bound, from a line of metrics.jsonl."""
    return float(line[BOUNDS[job.settings.train.objective]])


def _after_validation(job: Job, state: TrainState, bound: float, *, finished: bool) -> TrainState:
    """Count a finished epoch, and keep a copy of the weights if they are the best so far."""
    epoch = _epoch_number(state)
    if finished:
        state = replace(state, epoch=state.epoch + 1, batch=0, position=None)
    state = replace(state, validated=state.step)
    if state.best is None or bound > state.best:
        weights = {"model": snapshot(job.model), "guide": snapshot(job.guide)}
        state = replace(state, best=bound, best_of=criterion(job.settings), best_weights=weights, stale_epochs=0)
        return replace(state, best_step=state.step, best_epoch=epoch)
    stale = finished and settled(job.settings.train.scheduled_sampling, epoch - 1)
    return replace(state, stale_epochs=state.stale_epochs + int(stale))


def save(job: Job, state: TrainState, log: MetricsLog | None) -> None:
    """Write `last.pt`, which is enough to resume, then `best.pt`, which is a part of it."""
    if isinstance(job.train, StreamedData):  # every process has its own position in the stream
        place = None if state.position is None else list(state.position)
        state = replace(state, position=job.world.all_gather_objects(place))
    if log is None:
        return
    size = log.sync()
    contents = pack(
        state,
        job.settings,
        job.model,
        job.guide,
        optimizer=job.optimizer,
        metrics_bytes=size,
        data=job.train.fingerprint,
    )
    save_checkpoint(job.run / "last.pt", contents)
    if state.best_weights is not None:
        save_best(job.run / "best.pt", job.settings, state)


def _to_device(x: Tensor, job: Job) -> Tensor:
    if job.device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device=job.device, dtype=job.dtype, non_blocking=True)


@contextmanager
def _undisturbed(job: Job) -> Iterator[None]:
    """Eval mode without gradients and with separate random numbers; restores modes and generators afterwards."""
    was_training = job.objective.training
    devices = [job.device] if job.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(job.settings.seed)
        job.objective.eval()
        try:
            yield
        finally:
            job.objective.train(was_training)


def _epoch_number(state: TrainState) -> int:
    """The current epoch, counted from 1."""
    return state.epoch + 1
