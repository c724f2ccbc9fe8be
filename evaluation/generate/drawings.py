"""Drawings of models of pen strokes: `evaluation.generate` for a run with the likelihood of a pen.

The model is conditioned on the length of a drawing. Unless a length is given, each drawing has the length of a training
drawing, chosen with the run's seed, and is shown beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from corpora.recipes.strokes import positions
from dvae_pyro.files import disk_errors
from dvae_pyro.progress import progress_bar
from evaluation.loading.splits import corpus_of, read_split
from evaluation.reporting.plots import FAINT, INK, save_picture
from evaluation.reporting.provenance import caption
from inference.prediction.generation import generated_batches
from inference.runs import Run

__all__ = ["FILE", "draw", "drawing_sheet"]

FILE = "drawings.npz"
PICTURED = 36

Drawing = NDArray[np.floating[Any]]


def draw(run: Run, folder: Path, num: int, frames: int | None, batch: int) -> dict[str, Any]:
    """Write drawings, as points (`FILE`) and as a picture (``generated.png``).

    Args:
        run: the run.
        folder: the output folder.
        num: number of drawings.
        frames: T of all of them; None gives each the length of a training drawing, which is then shown beside it.
        batch: drawings that go through the model together.

    Returns:
        The results for the report.
    """
    training = [] if frames is not None else _chosen(run, num)
    lengths = [len(x) for x in training] if frames is None else [frames] * num
    drawings: list[Drawing | None] = []
    with progress_bar("generating", num, "seq") as bar:
        for samples in generated_batches(run.model, num, max(lengths), x="sample", batch=batch, seed=run.settings.seed):
            for x in samples.x.transpose(0, 1).cpu().numpy():
                x = x[: lengths[len(drawings)]]
                drawings.append(positions(x) if np.isfinite(x).all() else None)
            bar.update(samples.x.shape[1])
    kept = [points for points in drawings if points is not None]
    if kept:
        _write(folder / FILE, kept)
        groups = {"generated": kept[:PICTURED]}
        if training:
            beside = [positions(x) for x, points in zip(training, drawings, strict=True) if points is not None]
            groups = {"training data": beside[:PICTURED], **groups}
        heading = caption(run)
        save_picture(drawing_sheet(groups, heading), folder / "generated.png")
    return {
        "frames": max(lengths),
        "shortest": min(lengths) if training else None,
        "x": "sample",
        "not_finite": [number for number, points in enumerate(drawings) if points is None],
        "array": FILE,
    }


def _chosen(run: Run, num: int) -> list[Drawing]:
    """Frames (T, 3) of training drawings, in an order drawn with the run's seed; repeated where `num` exceeds them."""
    sequences = read_split(run, corpus_of(run.settings, "train"), "train", cut=True)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(run.settings.seed)).tolist()
    return [sequences[order[i % len(order)]].x.numpy() for i in range(num)]


def _write(path: Path, drawings: Sequence[Drawing]) -> None:
    """Write concatenated points with offsets, the format of corpus 'strokes'."""
    ends = np.cumsum([0, *(len(points) for points in drawings)])
    with disk_errors(path):
        np.savez(path, points=np.concatenate(drawings), offsets=ends)


def drawing_sheet(groups: Mapping[str, Sequence[Drawing]], heading: str = "") -> Figure:
    """Pen strokes as lines, groups of drawings side by side.

    Args:
        groups: drawings by the name of their group, each the points (T, 3) of a pen: x, y upwards, and 1 where it is
            lifted. Each drawing fills its cell, with equal scales of x and y.
        heading: title of the figure.
    """
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
