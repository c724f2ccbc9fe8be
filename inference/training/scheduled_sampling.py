"""Scheduled sampling over a training: its probability per epoch, its handlers, validation and patience.

`inference.handlers.scheduled_sampling` defines its effect on a model.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from inference.handlers.free_running import free_running
from inference.handlers.scheduled_sampling import scheduled_sampling
from inference.settings.tree import ScheduledSamplingSettings

__all__ = [
    "figures",
    "own_output_probability",
    "plan",
    "settled",
    "settling_epoch",
    "training_handler",
    "validation_handler",
]


def own_output_probability(settings: ScheduledSamplingSettings, epoch: int) -> float:
    r"""The probability of the model's own output in epoch e, counted from 0, with S = `start_epoch`:

    - linear (public code DVAE_SE): clip((e - S) / (`end_epoch` - S), 0, 1)
    - staircase (public code DVAE): 0 before S, then min(1, (1 + \lfloor (e - S) / `epochs_per_step` \rfloor) / 10)

    times `probability`; constant: `probability` in every epoch; 0 without a schedule.

    Example:
        >>> linear = ScheduledSamplingSettings("linear", start_epoch=2, end_epoch=6)
        >>> [own_output_probability(linear, e) for e in range(8)]
        [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
        >>> staircase = ScheduledSamplingSettings("staircase", epochs_per_step=2)
        >>> [own_output_probability(staircase, e) for e in (0, 1, 2, 17, 18, 99)]
        [0.1, 0.1, 0.2, 0.9, 1.0, 1.0]
    """
    past = epoch - settings.start_epoch
    match settings.schedule:
        case None:
            return 0.0
        case "constant":
            return settings.probability
        case "linear":
            share = min(1.0, max(0.0, past / (settings.end_epoch - settings.start_epoch)))
        case "staircase":
            share = 0.0 if past < 0 else min(10, 1 + past // settings.epochs_per_step) / 10
    return settings.probability * share


def settling_epoch(settings: ScheduledSamplingSettings) -> int:
    """The first epoch in which the probability has its final value."""
    staircase_end = settings.start_epoch + 9 * settings.epochs_per_step
    return {None: 0, "constant": 0, "linear": settings.end_epoch, "staircase": staircase_end}[settings.schedule]


def settled(settings: ScheduledSamplingSettings, epoch: int) -> bool:
    """Whether the probability has its final value; patience counts only these epochs."""
    return epoch >= settling_epoch(settings)


def training_handler(settings: ScheduledSamplingSettings, epoch: int) -> AbstractContextManager[Any]:
    """The handler of the objective in training."""
    if settings.schedule is None:
        return nullcontext()
    p = own_output_probability(settings, epoch)
    return scheduled_sampling(p, mix=settings.mix, coin=settings.coin)


def validation_handler(settings: ScheduledSamplingSettings, mode: str) -> AbstractContextManager[Any]:
    """The handler of the objective in validation, which uses the mode of the run's evaluations.

    Validation bounds of all epochs are comparable this way, independent of the probability in training, so that the
    best weights can be selected from the first epoch on. The bound of the free-running model is a valid bound.
    """
    if settings.schedule is None or mode != "gen":
        return nullcontext()
    return free_running()


def plan(settings: ScheduledSamplingSettings, epochs: float, mode: str) -> list[str]:
    """Lines to print that describe the schedule over a training of at most so many epochs."""
    if settings.schedule is None:
        return []
    end, last = settling_epoch(settings), max(0, math.ceil(epochs) - 1)
    first, final = (own_output_probability(settings, epoch) for epoch in (0, last))
    past = {"gen": "the model's own output", "gt": "the true past"}[mode]
    rise = f"{first:g} in epoch 1, {settings.probability:g} from epoch {end + 1} on; patience counts from then on"
    when = f"{first:g}" if end == 0 else rise
    lines = [f"scheduled sampling ({settings.schedule}, mix {settings.mix}): probability {when}; validated on {past}"]
    if final < settings.probability:
        lines.append(f"note: training ends in epoch {last + 1}, at probability {final:g}")
    return lines


def figures(settings: ScheduledSamplingSettings, epoch: int, **more: str) -> dict[str, float | int | str]:
    """The fields of a line of metrics.jsonl about scheduled sampling; none without a schedule."""
    return {} if settings.schedule is None else {"ss_prob": own_output_probability(settings, epoch), **more}
