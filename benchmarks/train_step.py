"""Time a training step: all frames at once against frame by frame, in one run on one machine.

python -m benchmarks.train_step --model dkf --frames 150 --sequences 32 --bins 257 --json step.json

A step is forward, backward and optimiser step on synthetic power spectra. Steps of the two forms alternate,
so that both meet the same disturbances. Each of three such runs gives a median for each form; the
least of the three counts, as noise only ever adds time.

The floor is the arithmetic alone: 6 operations (forward, gradient of inputs, gradient of weights, a multiplication and
an addition each) for every parameter and frame, at the rate at which this machine multiplies large matrices.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.arguments import add_common, computed, keep
from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import guarded

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inference.settings.tree import Settings

__all__ = ["main", "measure"]

FORMS = {"parallel": "auto", "stepwise": "stepwise"}
"""What each form is called in the report, and as `how` of a model and guide."""

PRODUCT = 1024
"""Rows and columns of the matrices whose product measures the machine."""

Report = dict[str, str | int | float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    args = _parser().parse_args(argv)
    sizes = {"frames": args.frames, "sequences": args.sequences, "bins": args.bins}

    def command() -> None:
        report = _run(args, sizes)
        keep(args.json, report)
        print(_text(report))

    return guarded(command)


def _run(args: argparse.Namespace, sizes: dict[str, int]) -> Report:
    for name, value in {**sizes, "steps": args.steps, "runs": args.runs, "threads": args.threads}.items():
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: expected at least 1.")
    # Heavy imports, once the arguments are known to be right.
    from inference.settings.resolve import resolve

    overrides = [f"model.bins={args.bins}", f"device={args.device}", *args.settings]
    settings = computed(resolve(args.model, args.guide, None, overrides))
    if settings.model.bins != args.bins:
        raise UserError(f"--bins {args.bins} contradicts model.bins={settings.model.bins}. Give one of them.")
    if settings.train.objective == "fivo":
        raise UserError("train.objective=fivo goes frame by frame in either form: there is nothing to compare.")
    import torch

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return measure(settings, args.frames, args.sequences, steps=args.steps, runs=args.runs)


def measure(settings: Settings, frames: int, sequences: int, *, steps: int = 5, runs: int = 3) -> Report:
    """Time both forms of the training step of the model and guide that the settings name.

    Args:
        settings: the settings of a run; of the data only `model.bins` counts.
        frames: frames T of each sequence.
        sequences: sequences N of the batch.
        steps: steps of each form in a run; two more warm up.
        runs: interleaved runs, of which the least median counts.

    Returns:
        What `--json` writes; times are seconds per step, frames per second those of the parallel form.
    """
    import pyro
    import torch

    from inference.objectives.elbo import Objective
    from inference.runs import create, pick_device, pick_dtype

    model, guide = create(settings)
    device, dtype = pick_device(settings.device), pick_dtype(settings.dtype)
    x = power_spectra(frames, sequences, settings.model.bins)
    model.fit_input(x.unbind(1))
    x, lengths = x.to(device=device, dtype=dtype), torch.full((sequences,), frames)
    objective = Objective.of(model, guide, settings.train)
    optimizer = torch.optim.Adam(objective.parameters(), lr=settings.optim.lr)

    square = torch.rand(PRODUCT, PRODUCT, device=device, dtype=dtype)

    def step(how: str) -> None:
        if how == "product":
            square @ square
        else:
            optimizer.zero_grad(set_to_none=True)
            bound = objective(x, lengths, beta=settings.train.beta, how=how)
            (bound.loss / (frames * sequences)).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with pyro.validation_enabled(False):  # as the training loop does
        medians = [interleaved(step, steps, forms={**FORMS, "product": "product"}) for _ in range(runs)]
    seconds = {form: min(median[form] for median in medians) for form in medians[0]}
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    rate = 2 * PRODUCT**3 / seconds["product"]
    floor = 6 * parameters * frames * sequences / rate
    return {
        "model": settings.model.name,
        "frames": frames,
        "sequences": sequences,
        "bins": settings.model.bins,
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "parallel_s": seconds["parallel"],
        "stepwise_s": seconds["stepwise"],
        "ratio": seconds["parallel"] / seconds["stepwise"],
        "frames_per_second": frames * sequences / seconds["parallel"],
        "operations_per_second": rate,
        "floor_s": floor,
        "over_floor": seconds["parallel"] / floor,
    }


def interleaved(
    step: Callable[[str], None],
    steps: int,
    warmup: int = 2,
    forms: Mapping[str, str] = FORMS,
    now: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Median time of a step of each form, the forms taking turns; the first `warmup` turns do not count.

    Args:
        step: a step of a form, given as what `forms` has for it.
        steps: turns that count.
        warmup: turns before them.
        forms: what each form is called, and is to `step`.
        now: the time; None: on the wall.
    """
    keep_freed_memory()  # as the commands do
    now = now or time.perf_counter
    times: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(warmup + steps):
        for form, how in forms.items():
            started = now()
            step(how)
            if turn >= warmup:
                times[form].append(now() - started)
    return {form: statistics.median(values) for form, values in times.items()}


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds: of this process, where it computes in one thread of a CPU and nothing else on the machine should count;
    else on the wall, when the device has done what it was asked.
    """
    import torch

    if device.type != "cuda":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def power_spectra(frames: int, sequences: int, bins: int) -> Tensor:
    """Noise (T, N, F) under a spectral envelope that falls with frequency, as that of speech does."""
    import torch

    generator = torch.Generator().manual_seed(0)
    noise = torch.empty(frames, sequences, bins).exponential_(generator=generator)
    return noise * torch.logspace(1, -4, bins)


def _text(report: Report) -> str:
    sizes = "{model}: T={frames}, N={sequences}, F={bins}, {threads} threads, {parameters} parameters"
    times = "parallel {parallel_s:.4f} s, stepwise {stepwise_s:.4f} s, ratio {ratio:.3f}"
    floor = "{frames_per_second:.0f} frames per second, {over_floor:.2f} times the floor of {floor_s:.4f} s"
    return "\n".join(part.format_map(report) for part in (sizes, times, floor))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description="Time a training step: all frames at once against frame by frame.",
    )
    parser.add_argument("--model", required=True, metavar="M", help="the generative model")
    parser.add_argument("--guide", metavar="G", help="the inference model (default: own)")
    parser.add_argument("--frames", type=int, default=150, metavar="T", help="per sequence (%(default)s)")
    parser.add_argument("--sequences", type=int, default=32, metavar="N", help="per batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="of each form in a run (%(default)s)")
    add_common(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
