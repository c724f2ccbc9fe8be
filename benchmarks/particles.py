"""Time of importance weights: all particles at once against one after another, in one process.

python -m benchmarks.particles --model dkf --particles 100 --frames 150 --bins 257 --json particles.json

Times the log-weights of the guide's draws and the particle filter on one sequence of synthetic power spectra; in the
looped forms each particle passes through time alone. The forms alternate, so that disturbances affect all. Each of
several runs gives a median for each form, and the smallest counts, since noise only adds time. Ten particles of the
looped forms are timed, and their time is extrapolated to all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pyro
import torch

from benchmarks.arguments import add_common, add_model, keep, settings_of
from benchmarks.timing import interleaved, power_spectra
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import check_minimum
from inference.estimation.importance import log_weights
from inference.particles.particle_filter import smc
from inference.runs import create, pick_device, pick_dtype
from inference.settings.tree import Settings

__all__ = ["main", "measure"]

FORMS = {name: name for name in ("parallel", "looped", "smc_parallel", "smc_looped")}
TIMED = 10
"""Particles of a looped form that are timed."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""

    def command() -> None:
        args = _parser().parse(argv)
        check_minimum(args, particles=1, frames=1, bins=1, timings=1, repeats=1, threads=1)
        settings = settings_of(args, args.guide)
        report = measure(settings, args.frames, args.particles, steps=args.timings, runs=args.repeats)
        keep(args.json, report)
        sizes = "{model}: K={particles}, T={frames}, F={bins}, {threads} threads, {parameters} parameters"
        weights = "log-weights: parallel {parallel_s:.3f} s, looped {looped_s:.3f} s, {ratio:.1f} times as fast"
        smc = "particle filter: parallel {smc_parallel_s:.3f} s, looped {smc_looped_s:.3f} s, {smc_ratio:.1f} times"
        print(f"{sizes}\n{weights}\n{smc}".format_map(report))

    return guarded(command)


def measure(settings: Settings, frames: int, particles: int, *, steps: int = 3, runs: int = 3) -> dict[str, Any]:
    """Time the log-weights of one sequence.

    Args:
        settings: settings of a run; of the data only `model.bins` is used.
        frames: T.
        particles: K.
        steps: timings of each form in a run, after one that warms up.
        runs: interleaved runs, of which the smallest median counts.

    Returns:
        The report: seconds for all K particles, and "ratio", "smc_ratio": the speed-up of the parallel form.
    """
    model, guide = create(settings)
    if not model.stepwise:
        raise UserError(f"model '{settings.model.name}' has no step, so no particle filter. Give another --model.")
    device, dtype = pick_device(settings.device), pick_dtype(settings.dtype)
    x = power_spectra(frames, 1, settings.model.bins)
    model.fit_input(x.unbind(1))
    x, lengths = x.to(device=device, dtype=dtype), torch.tensor([frames])

    timed = min(TIMED, particles)

    def weigh(form: str) -> None:
        loops, together = (1, particles) if form.endswith("parallel") else (timed, 1)
        for _ in range(loops):
            if form.startswith("smc"):
                smc(model, guide, x, lengths, together, seeds=[0], keep=False)
            else:
                log_weights(model, guide, x, lengths, together, seeds=[0])
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.no_grad(), pyro.validation_enabled(False):  # as in evaluation
        medians = [interleaved(weigh, steps, FORMS, warmup=1) for _ in range(runs)]
    seconds = {form: min(median[form] for median in medians) for form in FORMS}
    for form in ("looped", "smc_looped"):
        seconds[form] *= particles / timed
    parameters = {id(p): p.numel() for part in (model, guide) for p in part.parameters()}
    return {
        "model": settings.model.name,
        "frames": frames,
        "sequences": 1,
        "particles": particles,
        "bins": settings.model.bins,
        "threads": torch.get_num_threads(),
        "parameters": sum(parameters.values()),
        **{f"{form}_s": seconds[form] for form in FORMS},
        "ratio": seconds["looped"] / seconds["parallel"],
        "smc_ratio": seconds["smc_looped"] / seconds["smc_parallel"],
    }


def _parser() -> Parser:
    parser = Parser(
        "benchmarks.particles",
        "Time importance weights: all particles at once against one after another.",
    )
    add_model(parser, "dkf")
    parser.add_argument("--particles", type=int, default=100, metavar="K", help="draws of the guide (%(default)s)")
    parser.add_argument("--frames", type=int, default=150, metavar="T", help="frames of the sequence (%(default)s)")
    parser.add_argument("--timings", type=int, default=3, help="timings of each form in a run (%(default)s)")
    add_common(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
