"""How a training step grows: seconds and memory against frames T, sequences N, particles K and an FHVAE's table.

python -m benchmarks.growth --model dkf --json growth.json --picture growth.png
python -m benchmarks.growth --model fhvae --bins 80 --picture table.png train.discriminative.sequences=5000

One size grows at a time, the others stay at `--base`. Each point is measured in a process of its own, so that its peak
of memory is its own: the most that was ever resident, with all libraries (on a GPU: allocated there). The slope is that
of log seconds over log size by least squares: 1 is linear, below it costs fixed per step show. Seconds are as in
`benchmarks.train_step.clock`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import add_common, computed, keep
from benchmarks.train_step import clock, power_spectra
from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import guarded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from inference.settings.tree import Settings
    from models.core.grouping import SequenceIndex

__all__ = ["AXES", "main", "measure", "picture", "slope"]

AXES = {
    "frames": ("frames T", [50, 150, 500, 1500, 4000]),
    "sequences": ("sequences N", [2, 8, 32, 128]),
    "particles": ("particles K", [1, 4, 16, 64]),
    "table": ("utterances M of the table", [1_000, 10_000, 100_000, 1_000_000]),
}
"""What grows, in words, and the sizes by default."""

BASE, SEGMENTS_BASE = (150, 8, 1, 0), (20, 256, 1, 1_000)
"""Sizes of what stays, of sequences and, for models with a table, of segments."""

Point = dict[str, float | int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    args = _parser().parse_args(argv)

    def command() -> None:
        report = _run(args)
        keep(args.json, report)
        if args.picture is not None:
            from evaluation.reporting.plots import save_picture

            save_picture(picture(report), args.picture)

    return guarded(command)


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from models.registry import model_class

    hierarchical = model_class(args.model).hierarchical
    sizes = {name: _sizes(name, getattr(args, name), args.model, hierarchical) for name in AXES}
    stays = dict(zip(AXES, SEGMENTS_BASE if hierarchical else BASE, strict=True))
    base = stays | dict(zip(AXES, args.base or (), strict=False))
    for name, values in {**sizes, "base": args.base or [1], "steps": [args.steps], "bins": [args.bins]}.items():
        if min(values, default=1) < 1:
            raise UserError(f"--{name} {min(values)}: expected at least 1.")
    overrides = [f"model.bins={args.bins}", f"device={args.device}", *args.settings]
    axes: dict[str, Any] = {}
    for name, values in sizes.items():
        points = []
        for value in values:
            points.append({"size": value, **_apart(args.model, overrides, base | {name: value}, args)})
            text = "{seconds:.4g} s per step, {peak_mib:.0f} MiB".format_map(points[-1])
            print(f"{AXES[name][0]} {value}: {text}", flush=True)
        if points:
            axes[name] = {"points": points, "slope": slope(points)}
    return {"model": args.model, "base": base, "bins": args.bins, "axes": axes}


def _sizes(name: str, given: list[int] | None, model: str, hierarchical: bool) -> list[int]:
    """The sizes that an axis is measured at: those given, else the default of an axis that the model has."""
    missing = {"frames": "segments of one length"} if hierarchical else {"table": "no table of utterances"}
    if given and name in missing:
        raise UserError(f"--{name}: model '{model}' has {missing[name]}. Leave it out.")
    return AXES[name][1] if given is None and name not in missing else given or []


def _apart(model: str, overrides: Sequence[str], sizes: dict[str, int], args: argparse.Namespace) -> Point:
    """`measure` in a fresh process."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, model, overrides, sizes, args.steps, args.threads).result()
        except BrokenProcessPool:
            raise UserError(f"{sizes}: the process died, most likely for want of memory. Give smaller sizes.") from None


def measure(
    model: str, overrides: Sequence[str], sizes: dict[str, int], steps: int = 3, threads: int | None = None
) -> Point:
    """The median time of a training step, and the most memory; to be called in a process that has done nothing yet.

    Args:
        model: its name on the command line.
        overrides: settings.
        sizes: by the names of `AXES`.
        steps: that are timed; one more warms up.
        threads: CPU threads; None: what torch takes.
    """
    import pyro
    import torch

    from inference.handlers.discriminative import discriminative_handler
    from inference.objectives.elbo import Objective
    from inference.runs import create, pick_device, pick_dtype
    from inference.settings.resolve import resolve
    from inference.training.optimisers import build_optimiser, gradients

    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    settings = computed(resolve(model, overrides=[*overrides, f"train.particles={sizes['particles']}"]))
    net, guide = create(settings)
    device, dtype = pick_device(settings.device), pick_dtype(settings.dtype)
    data = power_spectra(sizes["frames"], sizes["sequences"], settings.model.bins)
    net.fit_input(data.unbind(1))
    x, lengths = data.to(device=device, dtype=dtype), torch.full((sizes["sequences"],), sizes["frames"])
    objective = Objective.of(net, guide, settings.train)
    rows = _with_table(guide, settings, sizes["table"], sizes["sequences"]) if net.hierarchical else None
    optimizer = build_optimiser(settings.optim, objective)
    now, times = clock(device), []
    with pyro.validation_enabled(False), discriminative_handler(settings.train.discriminative):
        for _ in range(1 + steps):
            started = now()
            optimizer.zero_grad(set_to_none=True)
            (objective(x, lengths, rows=rows).loss / x.shape[:2].numel()).backward()
            torch.nn.utils.get_total_norm(gradients(list(objective.parameters())))
            optimizer.step()
            times.append(now() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident()
    return {"seconds": statistics.median(times[1:]), "peak_mib": peak / 2**20}


def _with_table(guide: Any, settings: Settings, utterances: int, segments: int) -> SequenceIndex:
    """A guide's table of so many utterances; the rows of a batch, each segment of another one of them, where there are
    as many.
    """
    import torch

    from inference.training.sequence_table import is_sparse
    from models.core.grouping import SequenceIndex

    guide.make_table(utterances)
    guide.table.sparse = is_sparse(settings.train.discriminative)
    row = torch.arange(segments) * max(1, utterances // segments) % utterances
    told = settings.train.discriminative.sequences
    active = None if told is None else torch.cat([row, torch.arange(min(told, utterances))]).unique()
    each = 30  # segments of an utterance, 6 s
    counts = torch.full((segments,), each)
    return SequenceIndex(row, counts, row * each, utterances, each * utterances, trained=True, active=active)


def _resident() -> int:
    """The most memory that was ever resident in this process, in bytes."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def slope(points: Sequence[Point]) -> float | None:
    """By which power of the size the seconds grow; None for fewer than two points.

    Example:
        >>> slope([{"size": n, "seconds": 3.0 * n**2} for n in (1, 10, 100)]).__round__(6)
        2.0
    """
    import numpy as np

    if len(points) < 2:
        return None
    found = np.polyfit(np.log([p["size"] for p in points]), np.log([p["seconds"] for p in points]), 1)
    return float(found[0])


def picture(report: dict[str, Any]) -> Figure:
    """Seconds and memory against each size, both logarithmic, with what linear growth from the last point would be."""
    from matplotlib.figure import Figure

    axes = report["axes"]
    if not axes:
        raise UserError("nothing was measured: give --frames, --sequences, --particles or --table some sizes.")
    figure = Figure(figsize=(3.2 * len(axes), 5.2), layout="constrained", dpi=120)
    grid = figure.subplots(2, len(axes), sharex="col", squeeze=False)
    for column, (name, found) in enumerate(axes.items()):
        sizes = [point["size"] for point in found["points"]]
        for row, (key, label) in enumerate((("seconds", "seconds per step"), ("peak_mib", "MiB"))):
            values, panel = [point[key] for point in found["points"]], grid[row][column]
            panel.plot(sizes, [values[-1] * size / sizes[-1] for size in sizes], ":", color="#6a737d", label="linear")
            panel.plot(sizes, values, "o-", color="#c2410c", label=report["model"])
            panel.set(xscale="log", yscale="log")
            panel.set_ylabel(label if column == 0 else "")
            panel.tick_params(labelsize=8)
        grid[0][column].legend(fontsize=8, frameon=False)
        told = "" if found["slope"] is None else f"\nseconds grow as size^{found['slope']:.2f}"
        grid[0][column].set_title(AXES[name][0] + told, fontsize=9)
    return figure


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Time and memory of a training step against its sizes."
    )
    parser.add_argument("--model", required=True, metavar="M", help="the generative model")
    for name, (words, sizes) in AXES.items():
        told = f"{sizes}; none: skip"
        parser.add_argument(f"--{name}", type=int, nargs="*", metavar="n", help=f"{words} ({told})")
    stays = f"T, N, K of what stays ({BASE[:3]}; of segments {SEGMENTS_BASE[:3]}, with a table of {SEGMENTS_BASE[3]})"
    parser.add_argument("--base", type=int, nargs=3, metavar="n", help=stays)
    parser.add_argument("--steps", type=int, default=3, help="that are timed at each size (%(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw them")
    add_common(parser, runs=None)
    return parser


if __name__ == "__main__":
    sys.exit(main())
