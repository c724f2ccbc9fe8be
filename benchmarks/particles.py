"""Time importance weights: all particles at once against one after another, in one run on one machine.

python -m benchmarks.particles --model dkf --particles 100 --frames 150 --bins 257 --json particles.json

Of one sequence of synthetic power spectra: log-weights of the guide's draws, and the particle filter; in a loop, each
particle goes through time alone. The forms take turns, so that all meet the same disturbances; each of several runs
gives a median for each, and the least counts, as noise only ever adds time. Of the loops ten particles are timed, and
their time taken for all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import add_common, keep
from benchmarks.train_step import interleaved, power_spectra
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import guarded

if TYPE_CHECKING:
    from inference.settings.tree import Settings

__all__ = ["main", "measure"]

FORMS = {name: name for name in ("parallel", "looped", "smc_parallel", "smc_looped")}
TIMED = 10
"""Particles of a loop that are timed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    args = _parser().parse_args(argv)

    def command() -> None:
        report = _run(args)
        keep(args.json, report)
        sizes = "{model}: K={particles}, T={frames}, F={bins}, {threads} threads, {parameters} parameters"
        weights = "log-weights: parallel {parallel_s:.3f} s, looped {looped_s:.3f} s, {ratio:.1f} times as fast"
        smc = "particle filter: parallel {smc_parallel_s:.3f} s, looped {smc_looped_s:.3f} s, {smc_ratio:.1f} times"
        print(f"{sizes}\n{weights}\n{smc}".format_map(report))

    return guarded(command)


def _run(args: argparse.Namespace) -> dict[str, Any]:
    for name in ("particles", "frames", "bins", "steps", "runs", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: expected at least 1.")
    # Heavy imports, once the arguments are known to be right.
    from inference.settings.resolve import resolve

    overrides = [f"model.bins={args.bins}", f"device={args.device}", *args.settings]
    settings = resolve(args.model, args.guide, None, overrides)
    if settings.model.bins != args.bins:
        raise UserError(f"--bins {args.bins} contradicts model.bins={settings.model.bins}. Give one of them.")
    import torch

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return measure(settings, args.frames, args.particles, steps=args.steps, runs=args.runs)


def measure(settings: Settings, frames: int, particles: int, *, steps: int = 3, runs: int = 3) -> dict[str, Any]:
    """Time the log-weights of one sequence.

    Args:
        settings: the settings of a run; of the data only `model.bins` counts.
        frames: T.
        particles: K.
        steps: times of each form in a run; one more warms up.
        runs: interleaved runs, of which the least median counts.

    Returns:
        What `--json` writes: seconds for all K particles, and "ratio", "smc_ratio": how many times as fast they are in
        parallel.
    """
    import pyro
    import torch

    from inference.estimation.importance import log_weights
    from inference.particles.particle_filter import smc
    from inference.runs import create, pick_device, pick_dtype

    model, guide = create(settings)
    if not model.stepwise:
        raise UserError(f"model '{settings.model.name}' has no step, so no particle filter. Take another --model.")
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

    with torch.no_grad(), pyro.validation_enabled(False):  # as evaluation has it
        medians = [interleaved(weigh, steps, warmup=1, forms=FORMS) for _ in range(runs)]
    seconds = {form: min(median[form] for median in medians) for form in FORMS}
    for form in ("looped", "smc_looped"):
        seconds[form] *= particles / timed
    named = {id(p): p.numel() for part in (model, guide) for p in part.parameters()}
    return {
        "model": settings.model.name,
        "frames": frames,
        "sequences": 1,
        "particles": particles,
        "bins": settings.model.bins,
        "threads": torch.get_num_threads(),
        "parameters": sum(named.values()),
        **{f"{form}_s": seconds[form] for form in FORMS},
        "ratio": seconds["looped"] / seconds["parallel"],
        "smc_ratio": seconds["smc_looped"] / seconds["smc_parallel"],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.particles",
        description="Time importance weights: all particles at once against one after another.",
    )
    parser.add_argument("--model", default="dkf", metavar="M", help="the generative model (%(default)s)")
    parser.add_argument("--guide", metavar="G", help="the inference model (default: own)")
    parser.add_argument("--particles", type=int, default=100, metavar="K", help="draws of the guide (%(default)s)")
    parser.add_argument("--frames", type=int, default=150, metavar="T", help="of the sequence (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="times of each form in a run (%(default)s)")
    add_common(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
