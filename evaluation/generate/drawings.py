"""What a model of pen strokes draws: `evaluation.generate` of a run whose likelihood is that of a pen.

How a drawing ends is no part of the model, which is given its length; so each has the length of a drawing of the
training split, chosen by the run's seed, and is shown beside that one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_split
from corpora.recipes.strokes import positions
from corpora.registry import open_corpus
from dvae_pyro.files import disk_errors
from evaluation.reporting.command_line import say
from evaluation.reporting.plots import FAINT, INK, save_picture
from inference.prediction.generation import generated_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from inference.runs import Run

__all__ = ["FILE", "draw", "drawing_sheet"]

FILE = "drawings.npz"
ON_THE_SHEET = 36

Drawing = NDArray[np.floating[Any]]


def draw(run: Run, folder: Path, num: int, frames: int | None, batch: int) -> dict[str, Any]:
    """Fill a folder with drawings, as points (`FILE`) and as a picture (``generated.png``), and say with what.

    Args:
        run: the run.
        folder: where to.
        num: how many drawings.
        frames: T of all of them; None gives each the length of a training drawing, which then stands beside it.
        batch: drawings that go through the model together.
    """
    real = [] if frames is not None else _chosen(run, num)
    lengths = [len(x) for x in real] if frames is None else [frames] * num
    drawn: list[Drawing | None] = []
    bar = tqdm(desc="generating", total=num, unit="seq", mininterval=0.2 if sys.stderr.isatty() else 30.0)
    with bar:
        for made in generated_batches(run.model, num, max(lengths), x="sample", batch=batch, seed=run.settings.seed):
            for x in made.x.transpose(0, 1).cpu().numpy():
                x = x[: lengths[len(drawn)]]
                drawn.append(positions(x) if np.isfinite(x).all() else None)
            bar.update(made.x.shape[1])
    kept = [points for points in drawn if points is not None]
    if kept:
        _write(folder / FILE, kept)
        groups = {"generated": kept[:ON_THE_SHEET]}
        if real:
            beside = [positions(x) for x, points in zip(real, drawn, strict=True) if points is not None]
            groups = {"training data": beside[:ON_THE_SHEET], **groups}
        heading = f"{run.settings.model.name}, step {run.state['step']}"
        save_picture(drawing_sheet(groups, heading), folder / "generated.png")
    return {
        "frames": max(lengths),
        "shortest": min(lengths) if real else None,
        "x": "sample",
        "not_finite": [number for number, points in enumerate(drawn) if points is None],
        "array": FILE,
    }


def _chosen(run: Run, num: int) -> list[Drawing]:
    """Frames (T, 3) of so many training drawings, drawn with the run's seed; none twice where there are enough."""
    data = run.settings.data
    frontend = open_frontend(data, run.settings.model.bins)
    corpus = open_corpus(data, data.seed, needed=["train"])
    sequences = load_split(corpus, "train", frontend, data, say, cut=True)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(run.settings.seed)).tolist()
    return [sequences[order[i % len(order)]].x.numpy() for i in range(num)]


def _write(path: Path, drawings: Sequence[Drawing]) -> None:
    """Points one after the other, as an archive that corpus 'strokes' lies in has them."""
    ends = np.cumsum([0, *(len(points) for points in drawings)])
    with disk_errors(path):
        np.savez(path, points=np.concatenate(drawings), offsets=ends)


def drawing_sheet(groups: Mapping[str, Sequence[Drawing]], heading: str = "") -> Figure:
    """Pen strokes as ink, groups of drawings side by side.

    Args:
        groups: drawings by the name of their group, each the points (T, 3) of a pen: x, y upwards, and 1 where it is
            lifted. Each is drawn to fill its cell, x and y on one scale.
        heading: printed above all.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    every = [points for drawings in groups.values() for points in drawings]
    spans = np.array([np.ptp(points[:, :2], axis=0) for points in every])
    ratio = float(np.clip(np.median((spans[:, 0] + 1e-9) / (spans[:, 1] + 1e-9)), 0.5, 12.0))
    columns = max(1, round(6.0 / max(1.0, ratio)))
    rows = -(-max(len(drawings) for drawings in groups.values()) // columns)
    size = (len(groups) * columns * 0.9 * max(1.0, ratio), 0.6 + rows * 0.9 / min(1.0, ratio))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    for part, (name, drawings) in zip(figure.subfigures(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        part.suptitle(name, fontsize=9, color=INK)
        for i, axes in enumerate(part.subplots(rows, columns, squeeze=False).flat):
            axes.set_axis_off()
            if i < len(drawings):
                points = drawings[i].astype(np.float64)
                strokes = np.split(points[:, :2], np.flatnonzero(points[:-1, 2] > 0) + 1)
                axes.add_collection(LineCollection([s for s in strokes if len(s) > 1], colors=INK, linewidths=0.9))
                dots = np.array([s[0] for s in strokes if len(s) == 1]).reshape(-1, 2)
                axes.plot(dots[:, 0], dots[:, 1], ".", ms=2, color=INK)
                axes.autoscale()
                axes.set_aspect("equal", adjustable="datalim")
    if heading:
        figure.suptitle(heading, fontsize=9, color=FAINT, ha="left", x=0.01)
    return figure
