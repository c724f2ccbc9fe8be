"""Clocks, interleaved timing, and synthetic data of benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dvae_pyro.allocator import keep_freed_memory

__all__ = ["clock", "interleaved", "power_spectra"]


def interleaved(
    step: Callable[[str], None],
    steps: int,
    forms: Mapping[str, str],
    warmup: int = 2,
    now: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Median time of a step of each form, the forms taking turns; the first `warmup` turns do not count.

    Args:
        step: runs a step of a form, given by its value in `forms`.
        steps: turns that count.
        forms: name of each form, and its argument for `step`.
        warmup: turns before them.
        now: the clock; None is wall-clock time.
    """
    keep_freed_memory()  # as the commands of the library do
    now = now or time.perf_counter
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(warmup + steps):
        for form, argument in forms.items():
            started = now()
            step(argument)
            if turn >= warmup:
                times[form].append(now() - started)
    return {form: statistics.median(values) for form, values in times.items()}


def clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds: CPU time on a single CPU thread, which other processes do not disturb; else wall-clock time,
    after synchronising the device.
    """
    if device.type != "cuda":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def power_spectra(frames: int, sequences: int, bins: int) -> Tensor:
    """Exponential noise (T, N, F) with a spectral envelope that falls with frequency, as that of speech does."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.empty(frames, sequences, bins).exponential_(generator=generator)
    return noise * torch.logspace(1, -4, bins)
