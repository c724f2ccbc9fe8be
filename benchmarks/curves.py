"""The validation bound over epochs of several runs: ``python -m benchmarks.curves runs/dkf* --picture curves.png``.

Runs whose names differ only in ``-seedN`` are repetitions: they share a colour, and the table has the mean and the
range of their best bounds.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from evaluation.report.collect import collect
from evaluation.reporting.plots import COLOURS, FAINT, new_figure, open_axes, save_picture

__all__ = ["Curve", "curves", "main", "picture", "table"]

SEED = re.compile(r"-seed\d+$")


class Curve(NamedTuple):
    """The validation bounds of a run, in nats per frame.

    Attributes:
        epochs: the epochs after which it was validated.
        bounds: the bound that selects the best weights.
    """

    epochs: Sequence[int]
    bounds: Sequence[float]

    @property
    def best(self) -> float:
        """The highest bound."""
        return max(self.bounds)

    @property
    def best_epoch(self) -> int:
        """Its epoch."""
        return self.epochs[self.bounds.index(self.best)]


def curves(paths: Sequence[Path]) -> dict[str, list[Curve]]:
    """The curves of run folders, by the name of the run without its seed.

    Raises:
        UserError: for a run that has not been validated.
    """
    found: dict[str, list[Curve]] = {}
    for run in collect(paths):
        valid = [line for line in run.split("valid") if run.criterion in line]
        if not valid:
            raise UserError(f"{run.path} has no validation in metrics.jsonl yet. Train it for an epoch at least.")
        one = Curve([int(line["epoch"]) for line in valid], [float(line[run.criterion]) for line in valid])
        found.setdefault(SEED.sub("", run.name), []).append(one)
    return found


def table(found: Mapping[str, Sequence[Curve]]) -> str:
    """For each setting the best bounds of its seeds, their epochs and the last bounds, in Markdown."""
    rows = [
        "| setting | seeds | best bound: mean | lowest to highest | at epoch | last bound: mean |",
        "|" + 6 * "---|",
    ]
    for name, seeds in found.items():
        best = [one.best for one in seeds]
        epochs = ", ".join(str(one.best_epoch) for one in seeds)
        last = sum(one.bounds[-1] for one in seeds) / len(seeds)
        rows.append(
            f"| {name} | {len(seeds)} | {sum(best) / len(best):.1f} | {min(best):.1f} to {max(best):.1f} | {epochs} | "
            f"{last:.1f} |"
        )
    return "\n".join(rows)


def picture(found: Mapping[str, Sequence[Curve]]) -> Figure:
    """The curves, one colour per setting, with a dot at each best bound."""
    figure = new_figure(6.4, 3.6, dpi=120)
    axes = figure.subplots()
    for place, (name, seeds) in enumerate(found.items()):
        colour = COLOURS[place % len(COLOURS)]
        for number, one in enumerate(seeds):
            axes.plot(one.epochs, one.bounds, lw=1, color=colour, alpha=0.75, label=None if number else name)
            axes.plot([one.best_epoch], [one.best], "o", ms=4, color=colour)
    levels = sorted(bound for seeds in found.values() for one in seeds for bound in one.bounds)
    low, high = levels[len(levels) // 10], levels[-1]  # the steep rise of the first epochs would flatten the rest
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlabel("epoch", fontsize=8, color=FAINT)
    axes.set_ylabel("validation bound, nats per frame", fontsize=8, color=FAINT)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    open_axes(axes)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser("benchmarks.curves", "Compare the validation bounds of runs over epochs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; NAME-seedN repeats NAME")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves, as PNG, PDF or SVG")
    return guarded(lambda: _command(parser.parse_args(argv)))


def _command(given: argparse.Namespace) -> None:
    found = curves(given.runs)
    print(table(found))
    if given.picture is not None:
        save_picture(picture(found), given.picture)
        print(f"wrote {given.picture}")


if __name__ == "__main__":
    sys.exit(main())
