"""One training step, and validation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial

import torch

from inference.checkpoints.state import TrainState
from inference.handlers.auxiliary_cost import auxiliary_cost
from inference.handlers.discriminative import discriminative_handler
from inference.handlers.free_bits import free_bits
from inference.handlers.given_noise import given_noise
from inference.handlers.known_shape import known_shape
from inference.handlers.noise import BatchNoise
from inference.training.job import Job
from inference.training.monitor.metrics import Line, Measured, late_lines, measure
from inference.training.optimisers import gradients
from inference.training.reading.batches import Shard, on_host
from inference.training.recorded_step import loss_and_gradients
from inference.training.scheduled_sampling import figures, training_handler, validation_handler
from inference.training.schedules import free_bits_threshold, kl_weight, learning_rate
from inference.training.sequence_table import training_rows, validation_rows
from inference.training.signals import Stopped, StopRequest

__all__ = ["epoch_number", "stop_together", "train_step", "undisturbed", "validate"]


def train_step(job: Job, state: TrainState, part: Shard) -> tuple[Measured, int]:
    """One update of the weights on one batch; returns its metrics and the number of real frames.

    No value is read from the device. If a metric is not finite the update has been made; it must not be saved.
    """
    step = state.step + 1
    batch, frames = part.batch, part.frames
    rate = learning_rate(job.settings.optim, step, job.total_steps, state.plateaus)
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
        x = batch.x.to(device=job.device, dtype=job.dtype, non_blocking=True)
        compute = job.captured or partial(loss_and_gradients, job.objective, weight=part.weight)
        bound = compute(x, batch.lengths, frames, beta=beta, beta_sites=betas, rows=rows)
    parameters = [p for p in job.objective.parameters() if p.grad is not None]
    job.world.sum_gradients(parameters)
    for frozen in job.model.frozen_at(step):
        if frozen.grad is not None:
            frozen.grad.zero_()
    norm = torch.nn.utils.get_total_norm(gradients(parameters))
    before: Line = {"step": step, "epoch": epoch_number(state), "split": "train"}
    after: Line = {"lr": rate, "beta": beta, **_named(betas), **({} if spared is None else {"free_bits": spared})}
    after |= figures(train.scheduled_sampling, state.epoch)
    measured = measure(job, batch, bound, frames, part.weight, before, after, grad_norm=norm)
    if job.settings.optim.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, job.settings.optim.clip, norm)
    job.optimizer.step()
    return measured, frames


def validate(job: Job, state: TrainState, stop: StopRequest | None = None) -> Line:
    """The bound on the validation split, always with the same noise; the state of training is not changed."""
    beta, betas = _kl_weights(job, max(1, state.step))
    sampling, mode = job.settings.train.scheduled_sampling, job.settings.evaluation.mode
    before: Line = {"step": state.step, "epoch": epoch_number(state), "split": "valid"}
    order, frames = job.valid.batches.epoch(0), 0
    parts = job.valid.ahead(
        order, job.world, aside=job.device.type != "cpu", prepare=partial(on_host, device=job.device, dtype=job.dtype)
    )

    def measured() -> Iterator[Measured]:
        nonlocal frames
        values = validation_rows(job, job.valid)
        for part in parts:
            if stop is not None:
                stop_together(job, stop)
            batch = part.batch
            rows = None if values is None else job.valid.members.rows(part.indices, **values)
            x = batch.x.to(device=job.device, dtype=job.dtype, non_blocking=True)
            with _noise(job, part), known_shape.of(x, batch.lengths):
                bound = job.objective(x, batch.lengths, beta=beta, beta_sites=betas, rows=rows)
            frames += part.frames
            yield measure(job, batch, bound, 1, part.weight, before, {})

    totals: dict[str, float] = {}
    started = time.perf_counter()
    with undisturbed(job), validation_handler(sampling, mode), closing(parts):
        for line in late_lines(job, measured()):
            sums = {name: float(value) for name, value in line.items() if name not in before}
            totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
    line = {**before, **{name: value / frames for name, value in totals.items()}}
    line |= {
        "lr": learning_rate(job.settings.optim, max(1, state.step), job.total_steps, state.plateaus),
        "beta": beta,
        **_named(betas),
    }
    line |= figures(sampling, state.epoch, mode=mode)
    return {**line, "frames_per_second": frames / (time.perf_counter() - started)}


def stop_together(job: Job, stop: StopRequest) -> None:
    """Raise `Stopped` in all processes, between the same two steps, if any of them has received a signal."""
    if job.world.any(stop.requested):
        raise Stopped


def epoch_number(state: TrainState) -> int:
    """The current epoch, counted from 1."""
    return state.epoch + 1


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


@contextmanager
def undisturbed(job: Job) -> Iterator[None]:
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
