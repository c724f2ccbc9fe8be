"""Training steps on a GPU: frame by frame, all frames at once, recorded as a CUDA graph, and the same in bfloat16.

python -m benchmarks.gpu --device cuda --json gpu.json

A step is loss, gradients and Adam on synthetic power spectra; the forms take turns. The floor is what no form can be
faster than: the greater of arithmetic, 6 operations for every parameter and frame (`benchmarks.train_step`), at the
rate of a large product of matrices, and traffic, the data read in both directions and every weight, its gradient and
its two moments read and written once, at the rate of a large copy; both rates are measured in the same run. It leaves
out that frames follow each other, and all that is kept between layers.

What bfloat16 does to the bound is told at the same weights and noise, in nats per frame. On a CPU (`--device cpu`) a
recorded step is a list of operations, so this tries the command out and says nothing about a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import add_common, keep
from benchmarks.train_step import clock, interleaved, power_spectra
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import guarded

if TYPE_CHECKING:
    import torch

__all__ = ["main", "measure", "rates"]

MODELS = "vae,dkf,storn,vrnn,srnn,rvae,dsae"
FORMS = ("stepwise", "parallel", "captured", "bf16")
PRODUCT = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices whose product measures the machine."""
COPY = {"cpu": 2**26, "cuda": 2**30}
"""Bytes whose copy measures its memory."""
TARGET = 20.0
"""How many times as fast as the stepwise form a recorded step is to be on a GPU."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    args = _parser().parse_args(argv)
    return guarded(lambda: keep(args.json, _run(args)))


def _run(args: argparse.Namespace) -> dict[str, Any]:
    for name in ("frames", "sequences", "bins", "steps", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: expected at least 1.")
    import torch

    from inference.runs import pick_device
    from inference.settings.resolve import resolve

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    overrides = [f"model.bins={args.bins}", f"device={args.device}", "dtype=float32", *args.settings]
    chosen = [resolve(model, overrides=overrides) for model in args.models.split(",")]
    device = pick_device(args.device)
    machine = {"device": _name(device), "threads": torch.get_num_threads(), **rates(device)}
    report = {**machine, "frames": args.frames, "sequences": args.sequences, "bins": args.bins, "models": {}}
    print("{device}: {operations_per_second:.3g} operations/s, {bytes_per_second:.3g} bytes/s".format_map(machine))
    print(f"{'model':8}" + "".join(f"{form + ', ms':>14}" for form in FORMS) + "   floor  over floor  of stepwise")
    for settings in chosen:
        found = measure(settings, args.frames, args.sequences, args.steps, machine)
        report["models"][settings.model.name] = found
        times = "".join(f"{1e3 * found[f'{form}_s']:14.2f}" for form in FORMS)
        ends = "{over_floor:12.1f}{times_stepwise:13.1f}".format_map(found)
        print(f"{settings.model.name:8}{times}{1e3 * found['floor_s']:8.2f}{ends}", flush=True)
    if device.type == "cuda":
        short = [name for name, found in report["models"].items() if found["times_stepwise"] < TARGET]
        print(f"below {TARGET:g} times the stepwise form: {', '.join(short) or 'none'}")
    return report


def measure(
    settings: Any, frames: int, sequences: int, steps: int, machine: Mapping[str, Any]
) -> dict[str, float | int]:
    """Seconds of a step of each form, the floor, and what bfloat16 does to the bound.

    Args:
        settings: those of a run; of the data only `model.bins` counts.
        frames: frames T of each sequence.
        sequences: sequences N of the batch.
        steps: steps of each form that count; two more warm up, in which recordings are made.
        machine: what `rates` has found.
    """
    import pyro
    import torch

    from inference.objectives.elbo import Objective
    from inference.runs import create, pick_device
    from inference.training.optimisers import build_optimiser
    from inference.training.recorded_step import RecordedStep, loss_and_gradients

    device = pick_device(settings.device)
    model, guide = create(settings)
    data = power_spectra(frames, sequences, settings.model.bins)
    model.fit_input(data.unbind(1))
    x, lengths, real = data.to(device), torch.full((sequences,), frames), frames * sequences
    trained = model, guide, settings.train.objective, settings.train.particles
    plain, half = Objective(*trained), Objective(*trained, bf16=True)
    optimizer = build_optimiser(settings.optim, plain)
    recorded = {"captured": RecordedStep(plain), "bf16": RecordedStep(half)}

    def bound(objective: Objective) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(objective(x, lengths).terms.elbo.sum()) / real

    def step(form: str) -> None:
        optimizer.zero_grad(set_to_none=True)
        if form in recorded:
            recorded[form](x, lengths, real)
        else:
            loss_and_gradients(plain, x, lengths, real, how="stepwise" if form == "stepwise" else "auto")
        optimizer.step()

    with pyro.validation_enabled(False):
        bounds = bound(plain), bound(half)
        seconds = interleaved(step, steps, forms={form: form for form in FORMS}, now=clock(device))
    parameters = sum(p.numel() for p in plain.parameters())
    arithmetic = 6 * parameters * real / machine["operations_per_second"]
    traffic = 4 * (2 * x.numel() + 8 * parameters) / machine["bytes_per_second"]
    floor = max(arithmetic, traffic)
    return {
        "parameters": parameters,
        **{f"{form}_s": seconds[form] for form in FORMS},
        "arithmetic_s": arithmetic,
        "traffic_s": traffic,
        "floor_s": floor,
        "over_floor": seconds["captured"] / floor,
        "times_stepwise": seconds["stepwise"] / seconds["captured"],
        "bound": bounds[0],
        "bound_bf16": bounds[1],
    }


def rates(device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Operations per second of a large product of matrices (float32), and bytes per second of a large copy."""
    import torch

    size, room = PRODUCT[device.type], COPY[device.type] // 4
    square, out = torch.rand(2, size, size, device=device)
    there, back = torch.empty(room, device=device), torch.zeros(room, device=device)

    def step(what: str) -> None:
        if what == "product":
            torch.mm(square, square, out=out)
        else:
            there.copy_(back)

    forms = {"product": "product", "copy": "copy"}
    seconds = interleaved(step, repeats, forms=forms, now=clock(device))
    return {
        "operations_per_second": 2 * size**3 / seconds["product"],
        "bytes_per_second": 2 * 4 * room / seconds["copy"],
    }


def _name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Time training steps: stepwise, parallel, recorded, and recorded in bfloat16, beside the floor.",
    )
    parser.add_argument("--models", default=MODELS, metavar="M,M", help="generative models (%(default)s)")
    parser.add_argument("--frames", type=int, default=150, metavar="T", help="per sequence (%(default)s)")
    parser.add_argument("--sequences", type=int, default=32, metavar="N", help="per batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of each form (%(default)s)")
    add_common(parser, runs=None)
    parser.set_defaults(device="cuda")
    return parser


if __name__ == "__main__":
    sys.exit(main())
