"""The training loop: steps, validation, early stopping, checkpoints.

A run is a sequence of `TrainState`s. Each step is a function of the state before it, the weights and torch's
generators, all of which a checkpoint holds; a run that was stopped or killed therefore resumes exactly. Several
processes (`inference.training.distributed`) take each step together, each with its shard of the batch; only the first
process writes, to `Job.run`, by `MetricsLog` and `save`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pyro
from torch import Tensor

from inference.checkpoints.files import save_checkpoint, snapshot
from inference.checkpoints.state import TrainState, criterion, pack, save_best
from inference.objectives.elbo import BOUNDS
from inference.settings.tree import TrainSettings
from inference.training.job import Job
from inference.training.monitor.convergence import epoch_line
from inference.training.monitor.examples import Examples
from inference.training.monitor.logs import MetricsLog, ProgressBar, Speed
from inference.training.monitor.metrics import Late, Line
from inference.training.reading.batches import on_host
from inference.training.reading.readers import Reader, StreamedData, reader_of
from inference.training.recorded_step import lengthened, whole_multiple
from inference.training.scheduled_sampling import settled
from inference.training.schedules import is_plateau
from inference.training.signals import Stopped, stop_on_signals
from inference.training.steps import epoch_number, stop_together, train_step, undisturbed, validate

__all__ = ["fit", "measure_start", "over", "save"]


def fit(job: Job, state: TrainState, log: MetricsLog | None) -> TrainState:
    """Train until it is `over`; on a signal, save and raise `Stopped`. A process without a log writes nothing."""
    every = job.settings.train.checkpoint_every
    reader = _reader(job, state)
    speed, late, examples = Speed(), Late(job), Examples(job, log)
    bar = ProgressBar(job.total_steps, state.step, shown=job.world.main)
    with bar, stop_on_signals() as stop, pyro.validation_enabled(False):
        try:
            while not over(job.settings.train, state) or _validation_due(job, state, reader):
                stop_together(job, stop)
                if _validation_due(job, state, reader):
                    late.settle()
                    for remark in reader.remarks() if reader.finished else []:
                        bar.say(remark)
                    line = validate(job, state, stop)
                    _write(log, line)
                    state = _after_validation(job, state, _trained_bound(job, line), finished=reader.finished)
                    if state.best_step == state.step:
                        with undisturbed(job):
                            examples.show(state.step)
                    bar.epoch(epoch_line(state, line, _trained_bound(job, line), job.settings.train))
                    if reader.finished:
                        reader.close()
                        reader = _reader(job, state)
                    speed.restart()
                else:
                    try:
                        with speed.waiting():
                            part = next(reader)
                        measured, frames = train_step(job, state, part)
                    except Exception:
                        late.settle()  # what failed may follow from weights that are not finite
                        raise
                    state = replace(state, step=state.step + 1, batch=state.batch + 1, position=reader.position)
                    speed.add(frames)
                    lap = speed.lap() if state.step % job.settings.train.log_every == 0 else None
                    late.add(measured, partial(_logged, log, bar, speed.rate, lap))
                if state.step % every == 0 and not _validation_due(job, state, reader):
                    late.settle()
                    save(job, state, log)
            late.settle()
            save(job, state, log)
        except Stopped:
            late.settle()
            save(job, state, log)
            raise Stopped(
                f"Stopped at step {state.step} and saved {job.run / 'last.pt'}.\n"
                f"Resume with: python -m inference.svi --resume {job.run}"
            ) from None
        finally:
            reader.close()
    return state


def _reader(job: Job, state: TrainState) -> Reader:
    """The batches after a state, padded as recorded steps need them."""

    def prepare(x: Tensor) -> Tensor:
        padded = whole_multiple(len(x), job.settings.train.pad_frames, job.settings.data.sequence_frames)
        return on_host(lengthened(x, padded), device=job.device, dtype=job.dtype)

    return reader_of(job.train, state, job.world, job.device, prepare)


def _write(log: MetricsLog | None, line: Line) -> None:
    if log is not None:
        log.write(line)


def _logged(log: MetricsLog | None, bar: ProgressBar, rate: float, lap: dict[str, float] | None, line: Line) -> None:
    """Log and show the metrics of a step, a step later."""
    if lap is not None:
        _write(log, {**line, **lap})
    bar.advance(f"loss {line['loss']:.4g}, {rate:,.0f} frames/s")


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


def _trained_bound(job: Job, line: Line) -> float:
    """The trained bound, from a line of metrics.jsonl."""
    return float(line[BOUNDS[job.settings.train.objective]])


def _after_validation(job: Job, state: TrainState, bound: float, *, finished: bool) -> TrainState:
    """Count a finished epoch, and keep a copy of the weights if they are the best so far."""
    epoch = epoch_number(state)
    if finished:
        state = replace(state, epoch=state.epoch + 1, batch=0, position=None)
    state = replace(state, validated=state.step)
    if state.best is None or bound > state.best:
        weights = {"model": snapshot(job.model), "guide": snapshot(job.guide)}
        state = replace(state, best=bound, best_of=criterion(job.settings), best_weights=weights, stale_epochs=0)
        return replace(state, best_step=state.step, best_epoch=epoch)
    if not (finished and settled(job.settings.train.scheduled_sampling, epoch - 1)):
        return state
    stale = state.stale_epochs + 1
    return replace(state, stale_epochs=stale, plateaus=state.plateaus + is_plateau(job.settings.optim, stale))


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
