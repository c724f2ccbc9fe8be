"""How estimates fare as sequences grow longer: the same sequences, cut after more and more frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from evaluation.likelihood.estimation import Plan, estimate_all
from inference.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OverTime", "over_time", "picture_over_time"]

MOST, SHORTEST, STEP = 8, 5, 2
"""Sequences that are cut, frames of the shortest cut, and by what each cut is longer than the one before."""
REPEATS = 10
"""Repeats for the spread, unless more are asked for."""
COLOURS = {"elbo": "#6a737d", "iwae": "#c2410c", "smc": "#1f5fa8"}
LABELS = {"elbo": "ELBO", "iwae": "importance-weighted", "smc": "particle filter"}


class OverTime(NamedTuple):
    """Estimates for several numbers of frames.

    Attributes:
        frames: the numbers T, (J,).
        estimates: log-likelihoods in nats by estimator, (J, R, N).
    """

    frames: list[int]
    estimates: dict[str, NDArray[np.float64]]


def over_time(run: Run, sequences: Sequence[Prepared], plan: Plan, *, progress: bool = False) -> OverTime:
    """Estimate the likelihood of the first T frames of the longest sequences, for T up to the length of the shortest of
    them.

    Args:
        run: the run.
        sequences: the data.
        plan: what to estimate; at least `REPEATS` repeats are made.
        progress: draw progress bars.

    Raises:
        UserError: where sequences are too short to be cut.
    """
    chosen = sorted(sequences, key=lambda item: -len(item.x))[:MOST]
    longest = len(chosen[-1].x)
    if longest < 2 * SHORTEST:
        raise UserError(f"--picture needs sequences of at least {2 * SHORTEST} frames, and the longest have {longest}.")
    frames = [SHORTEST]
    while frames[-1] * STEP <= longest / 1.5:  # the last cut is not much like the one before
        frames.append(frames[-1] * STEP)
    frames.append(longest)
    plan = replace(plan, repeats=max(plan.repeats, REPEATS))
    found = [
        estimate_all(run, [item._replace(x=item.x[:t]) for item in chosen], plan, progress=progress) for t in frames
    ]
    return OverTime(frames, {name: np.stack([one[name] for one in found]) for name in COLOURS if name in found[0]})


def picture_over_time(found: OverTime, plan: Plan) -> Figure:
    """Left: each estimate, per frame, above the ELBO (or, without one, as it is). Right: its standard deviation over
    repeats, root mean square over sequences.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(9.0, 3.6), layout="constrained", dpi=150)
    level, spread = figure.subplots(1, 2)
    t = np.array(found.frames)
    base = found.estimates["elbo"].mean((1, 2)) if "elbo" in found.estimates else 0.0
    for name, values in found.estimates.items():
        style = {"color": COLOURS[name], "label": LABELS[name], "marker": "o", "ms": 3.5, "lw": 1.6}
        level.plot(t, (values.mean((1, 2)) - base) / t, **style)
        spread.plot(t, np.sqrt(values.var(axis=1, ddof=1).mean(axis=1)).clip(1e-6), **style)
    above = " above the ELBO" if "elbo" in found.estimates else ""
    level.set_title(f"log-likelihood estimate{above}, nats per frame", fontsize=9, loc="left")
    spread.set_title("standard deviation of one estimate, nats per sequence", fontsize=9, loc="left")
    spread.set_yscale("log")
    for formatter in (spread.yaxis.set_major_formatter, spread.yaxis.set_minor_formatter):
        formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    for axes in (level, spread):
        axes.set_xscale("log")
        axes.set_xticks(t, [str(v) for v in found.frames])
        axes.xaxis.minorticks_off()
        axes.set_xlabel("frames T")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e7ec", lw=0.6)
    level.legend(frameon=False, fontsize=8)
    sequences = next(iter(found.estimates.values())).shape[2]
    figure.suptitle(f"{plan.particles} particles, {sequences} sequences cut after T frames", fontsize=10)
    return figure
