"""Likelihood estimates as a function of the sequence length: the same sequences, truncated at several lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from evaluation.likelihood.estimation import Plan, estimate_all
from evaluation.reporting.plots import new_figure
from inference.runs import Run

__all__ = ["LengthEstimates", "estimate_by_length", "length_picture"]

SEQUENCES, SHORTEST, FACTOR = 8, 5, 2
"""Number of sequences, frames of the shortest truncation, and the ratio of successive lengths."""
REPEATS = 10
"""Smallest number of repeats, for the standard deviation."""
COLOURS = {"elbo": "#6a737d", "iwae": "#c2410c", "smc": "#1f5fa8"}
LABELS = {"elbo": "ELBO", "iwae": "importance-weighted", "smc": "particle filter"}


class LengthEstimates(NamedTuple):
    """Estimates at several lengths.

    Attributes:
        frames: the lengths T, (J,).
        estimates: log-likelihoods in nats by estimator, (J, R, N).
    """

    frames: list[int]
    estimates: dict[str, NDArray[np.float64]]


def estimate_by_length(
    run: Run, sequences: Sequence[Prepared], plan: Plan, *, progress: bool = False
) -> LengthEstimates:
    """Estimate the likelihood of the first T frames of the longest sequences, for T up to the length of the shortest of
    these.

    Args:
        run: the run.
        sequences: the data.
        plan: what to estimate; with at least `REPEATS` repeats.
        progress: draw progress bars.

    Raises:
        UserError: the sequences are too short.
    """
    chosen = sorted(sequences, key=lambda item: -len(item.x))[:SEQUENCES]
    longest = len(chosen[-1].x)
    if longest < 2 * SHORTEST:
        raise UserError(f"--picture needs sequences of at least {2 * SHORTEST} frames, and the longest have {longest}.")
    frames = [SHORTEST]
    while frames[-1] * FACTOR <= longest / 1.5:  # keep a distance from the last length
        frames.append(frames[-1] * FACTOR)
    frames.append(longest)
    plan = replace(plan, repeats=max(plan.repeats, REPEATS))
    figures = [
        estimate_all(run, [item._replace(x=item.x[:t]) for item in chosen], plan, progress=progress) for t in frames
    ]
    names = [name for name in COLOURS if name in figures[0]]
    return LengthEstimates(frames, {name: np.stack([of_length[name] for of_length in figures]) for name in names})


def length_picture(measured: LengthEstimates, plan: Plan, name: str = "") -> Figure:
    """Left: each estimate per frame, minus the ELBO if that was estimated. Right: its standard deviation over repeats,
    root mean square over sequences.

    Args:
        measured: the estimates.
        plan: what was estimated.
        name: of the run, for the title.
    """
    _, repeats, sequences = next(iter(measured.estimates.values())).shape
    what = f"{plan.particles} particles, {sequences} sequences cut after T frames, {repeats} repeats"
    figure = new_figure(9.0, 4.0, f"{name}: {what}" if name else what, dpi=150)
    level, spread = figure.subplots(1, 2)
    t = np.array(measured.frames)
    base = measured.estimates["elbo"].mean((1, 2)) if "elbo" in measured.estimates else 0.0
    for estimator, values in measured.estimates.items():
        style = {"color": COLOURS[estimator], "label": LABELS[estimator], "marker": "o", "ms": 3.5, "lw": 1.6}
        level.plot(t, (values.mean((1, 2)) - base) / t, **style)
        spread.plot(t, np.sqrt(values.var(axis=1, ddof=1).mean(axis=1)).clip(1e-6), **style)
    above = " above the ELBO" if "elbo" in measured.estimates else ""
    level.set_title(f"log-likelihood estimate{above}", fontsize=9, loc="left")
    level.set_ylabel("nats per frame", fontsize=9)
    spread.set_title("standard deviation of one estimate over repeats", fontsize=9, loc="left")
    spread.set_ylabel("nats per sequence", fontsize=9)
    spread.set_yscale("log")
    for formatter in (spread.yaxis.set_major_formatter, spread.yaxis.set_minor_formatter):
        formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    for axes in (level, spread):
        axes.set_xscale("log")
        axes.set_xticks(t, [str(v) for v in measured.frames])
        axes.xaxis.minorticks_off()
        axes.set_xlabel("frames T of each sequence", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e7ec", lw=0.6)
    handles, labels = level.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
