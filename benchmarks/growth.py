"""Growth of a training step: time and memory against frames T, sequences N, particles K and an FHVAE's table.

python -m benchmarks.growth --model dkf --json growth.json --picture growth.png
python -m benchmarks.growth --model fhvae --bins 80 --picture table.png train.discriminative.sequences=5000

One size varies at a time, the others are those of `--base`. Each point is measured in a process of its own, so that its
peak of memory is its own: resident memory including all libraries (on a GPU: memory allocated there). The slope is that
of log seconds over log size by least squares: 1 is linear, less shows costs that are constant per step. Seconds are
those of `benchmarks.timing.clock`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch

from benchmarks.arguments import add_common, add_model, keep, without_graph
from benchmarks.timing import clock, power_spectra
from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import check_minimum
from inference.handlers.discriminative import discriminative_handler
from inference.objectives.elbo import Objective
from inference.runs import create, pick_device, pick_dtype
from inference.settings.resolve import resolve
from inference.settings.tree import Settings
from inference.training.optimisers import build_optimiser, gradients
from inference.training.sequence_table import is_sparse
from models.core.grouping import SequenceIndex
from models.registry import model_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AXES", "main", "measure", "picture", "slope"]

AXES = {
    "frames": ("frames T", [50, 150, 500, 1500, 4000]),
    "sequences": ("sequences N", [2, 8, 32, 128]),
    "particles": ("particles K", [1, 4, 16, 64]),
    "table": ("utterances M of the table", [1_000, 10_000, 100_000, 1_000_000]),
}
"""Label and default sizes of each axis."""

BASE, SEGMENTS_BASE = (150, 8, 1, 0), (20, 256, 1, 1_000)
"""Default base sizes for models of sequences and, with a table, of segments."""

Point = dict[str, float | int]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""

    def command() -> None:
        args = _parser().parse(argv)
        report = _run(args)
        keep(args.json, report)
        if args.picture is not None:
            from evaluation.reporting.plots import save_picture  # matplotlib stays out of the measured processes

            save_picture(picture(report), args.picture)

    return guarded(command)


def _run(args: argparse.Namespace) -> dict[str, Any]:
    check_minimum(args, **dict.fromkeys(AXES, 1), base=1, steps=1, bins=1, threads=1)
    hierarchical = model_class(args.model).hierarchical
    sizes = {name: _sizes(name, getattr(args, name), args.model, hierarchical) for name in AXES}
    base = dict(zip(AXES, SEGMENTS_BASE if hierarchical else BASE, strict=True))
    base |= dict(zip(AXES, args.base or (), strict=False))
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


def _sizes(name: str, sizes: list[int] | None, model: str, hierarchical: bool) -> list[int]:
    """The sizes of an axis: those of the command line, else the default if the model has the axis."""
    missing = {"frames": "segments of one length"} if hierarchical else {"table": "no table of utterances"}
    if sizes and name in missing:
        raise UserError(f"--{name}: model '{model}' has {missing[name]}. Omit it.")
    return AXES[name][1] if sizes is None and name not in missing else sizes or []


def _apart(model: str, overrides: Sequence[str], sizes: dict[str, int], args: argparse.Namespace) -> Point:
    """`measure` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, model, overrides, sizes, args.steps, args.threads).result()
        except BrokenProcessPool:
            raise UserError(f"{sizes}: the process crashed, most likely out of memory. Give smaller sizes.") from None


def measure(
    model: str, overrides: Sequence[str], sizes: dict[str, int], steps: int = 3, threads: int | None = None
) -> Point:
    """Median time of a training step and peak memory, to be called in a new process.

    Args:
        model: name of the model.
        overrides: settings.
        sizes: by the names of `AXES`.
        steps: timed steps, after one that warms up.
        threads: CPU threads; None is the number of PyTorch.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    settings = without_graph(resolve(model, overrides=[*overrides, f"train.particles={sizes['particles']}"]))
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
    """Make a guide's table; returns the rows of a batch, of different utterances as far as possible."""
    guide.make_table(utterances)
    guide.table.sparse = is_sparse(settings.train.discriminative)
    row = torch.arange(segments) * max(1, utterances // segments) % utterances
    candidates = settings.train.discriminative.sequences
    active = None if candidates is None else torch.cat([row, torch.arange(min(candidates, utterances))]).unique()
    each = 30  # segments of an utterance of 6 s
    counts = torch.full((segments,), each)
    return SequenceIndex(row, counts, row * each, utterances, each * utterances, trained=True, active=active)


def _resident() -> int:
    """Peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def slope(points: Sequence[Point]) -> float | None:
    """Exponent of the growth of seconds with the size; None for fewer than two points.

    Example:
        >>> slope([{"size": n, "seconds": 3.0 * n**2} for n in (1, 10, 100)]).__round__(6)
        2.0
    """
    if len(points) < 2:
        return None
    return float(np.polyfit(np.log([p["size"] for p in points]), np.log([p["seconds"] for p in points]), 1)[0])


def picture(report: dict[str, Any]) -> Figure:
    """Seconds and memory against each size on logarithmic axes, with linear growth through the last point."""
    from matplotlib.figure import Figure  # see `main`
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes = report["axes"]
    if not axes:
        raise UserError("nothing was measured: give --frames, --sequences, --particles or --table some sizes.")
    figure = Figure(figsize=(3.2 * len(axes), 5.6), layout="constrained", dpi=120)
    figure.suptitle(f"{report['model']}: time and memory of a training step", fontsize=10, ha="left", x=0.01)
    grid = figure.subplots(2, len(axes), sharex="col", squeeze=False)
    for column, (name, axis) in enumerate(axes.items()):
        sizes = [point["size"] for point in axis["points"]]
        for row, (key, label) in enumerate((("seconds", "time of a step, s"), ("peak_mib", "peak memory, MiB"))):
            values, panel = [point[key] for point in axis["points"]], grid[row][column]
            panel.plot(sizes, [values[-1] * size / sizes[-1] for size in sizes], ":", color="#6a737d", label="linear")
            panel.plot(sizes, values, "o-", color="#c2410c", label=report["model"])
            panel.set(xscale="log", yscale="log")
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.set_ylabel(label if column == 0 else "")
            panel.tick_params(labelsize=8)
        growth = "" if axis["slope"] is None else f"\nseconds grow as size^{axis['slope']:.2f}"
        grid[0][column].set_title(AXES[name][0] + growth, fontsize=9)
        grid[1][column].set_xlabel(AXES[name][0], fontsize=9)
    handles, _ = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        ["linear through the last point", "measured"],
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    return figure


def _parser() -> Parser:
    parser = Parser("benchmarks.growth", "Time and memory of a training step against its sizes.")
    add_model(parser, guide=False)
    for name, (label, sizes) in AXES.items():
        text = f"{label} (default: {sizes}; no value skips the axis)"
        parser.add_argument(f"--{name}", type=int, nargs="*", metavar="n", help=text)
    base = (
        f"T, N, K of the other axes ({BASE[:3]}; of segments {SEGMENTS_BASE[:3]}, with a table of {SEGMENTS_BASE[3]})"
    )
    parser.add_argument("--base", type=int, nargs=3, metavar="n", help=base)
    parser.add_argument("--steps", type=int, default=3, help="timed steps at each size (%(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw time and memory")
    add_common(parser, runs=None)
    return parser


if __name__ == "__main__":
    sys.exit(main())
