"""The work of `evaluation.factor_grid`: z1 of some segments decoded with z2 of others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError
from evaluation.disentanglement.plots import segment_grid
from evaluation.disentanglement.segments import (
    Segment,
    axes_of,
    colours_of,
    decoded,
    drawable,
    inferred,
    select_segments,
)
from evaluation.reporting.command_line import Request, read_run, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.provenance import caption, provenance
from inference.runs import Run

__all__ = ["grid", "run_factor_grid", "shares"]


def run_factor_grid(request: Request, options: argparse.Namespace) -> None:
    """Decode the grid, write picture and report, and print the shares of variance.

    Raises:
        UserError: the model of the run has no z1 and z2.
    """
    run = read_run(request)
    if not run.model.hierarchical:
        raise UserError(
            f"model '{run.settings.model.name}' of {run.path} has no z1 and z2 to combine. Train one that has: "
            "python -m inference.svi --model fhvae"
        )
    outputs = outputs_of("factor_grid", request, run.settings)
    wanted = {"--row": (options.row, options.num_rows), "--column": (options.column, options.num_columns)}
    rows, columns = select_segments(run, request.split, wanted, options.at).values()
    cells = drawable(run, grid(run, rows, columns))
    figures = shares(cells)
    pictured = np.full((len(rows) + 2, len(columns) + 2, *cells.shape[2:]), np.nan)
    pictured[2:, 2:] = cells
    for border, segments in ((pictured[2:, :2], rows), (pictured[:2, 2:].swapaxes(0, 1), columns)):
        border[:, 0] = drawable(run, np.stack([segment.x.double().numpy() for segment in segments]))
        border[:, 1] = drawable(run, decoded(run, inferred(run, segments)))
    labels = [["original", "decoded", *(segment.label for segment in segments)] for segments in (rows, columns)]
    heading = f"{caption(run)}: z1 of the segment of each row, z2 of the segment of each column"
    outputs.draw(segment_grid(pictured, labels[0], labels[1], heading, colours=colours_of(run), axes=axes_of(run)))
    report: dict[str, Any] = {
        **provenance("factor_grid", run, request),
        "num_sequences": len(rows) + len(columns),
        "rows": [segment.described() for segment in rows],
        "columns": [segment.described() for segment in columns],
        "metrics": {f"share_{name}": {"mean": share, "stderr": None} for name, share in figures.items()},
    }
    outputs.write(report)
    print(
        f"of the variance of {len(rows)} x {len(columns)} segments, z1 of the rows explains "
        f"{100 * figures['z1']:.0f} %, z2 of the columns {100 * figures['z2']:.0f} %, and their interaction "
        f"{100 * figures['together']:.0f} %"
    )
    say(f"wrote {outputs.names('png')}")


def grid(run: Run, rows: Sequence[Segment], columns: Sequence[Segment]) -> NDArray[np.float64]:
    r"""E[x | z1 of segment r, z2 of segment c] for each pair, at the posterior means: (R, C, S, D)."""
    z1, latents = inferred(run, rows)["z1"], inferred(run, columns)
    pairs = {name: value.repeat(len(rows), 1) for name, value in latents.items()}
    frames = decoded(run, {**pairs, "z1": z1.repeat_interleave(len(columns), 0)})
    return frames.reshape(len(rows), len(columns), *frames.shape[1:])


def shares(cells: NDArray[np.float64]) -> dict[str, float]:
    r"""Shares of the variance of the cells of a grid, in a two-way layout:

    .. math:: \sum_{rc} \|x_{rc} - \bar x\|^2 = C \sum_r \|\bar x_{r \cdot} - \bar x\|^2
        + R \sum_c \|\bar x_{\cdot c} - \bar x\|^2 + \mathrm{interaction}

    Args:
        cells: (R, C, S, D).

    Returns:
        The three shares: "z1" (rows), "z2" (columns), "together" (interaction).
    """
    mean = cells.mean((0, 1))
    total = float(np.square(cells - mean).sum()) or 1.0
    of_rows = cells.shape[1] * float(np.square(cells.mean(1) - mean).sum()) / total
    of_columns = cells.shape[0] * float(np.square(cells.mean(0) - mean).sum()) / total
    return {"z1": of_rows, "z2": of_columns, "together": max(0.0, 1.0 - of_rows - of_columns)}
