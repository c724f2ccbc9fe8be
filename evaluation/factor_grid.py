"""What z1 and z2 of segments hold: ``python -m evaluation.factor_grid RUN``.

Decodes z1 of some segments with z2 of others, in a grid as Figures 4 and 8 of Hsu, Zhang & Glass (2017): along a row
what is said should stay, along a column who says it. Leaves ``factor_grid.png`` and ``factor_grid.json`` in the run
folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evaluation.disentanglement.segments import Segment
    from inference.runs import Run

__all__ = ["grid", "main", "shares"]


def grid(run: Run, rows: Sequence[Segment], columns: Sequence[Segment]) -> NDArray[np.float64]:
    r"""E[x | z1 of segment r, z2 of segment c] of every pair, means of q taken for the latents: (R, C, S, D)."""
    from evaluation.disentanglement.segments import decoded, inferred

    z1, of_columns = inferred(run, rows)["z1"], inferred(run, columns)
    pairs = {name: value.repeat(len(rows), 1) for name, value in of_columns.items()}
    made = decoded(run, {**pairs, "z1": z1.repeat_interleave(len(columns), 0)})
    return made.reshape(len(rows), len(columns), *made.shape[1:])


def shares(cells: NDArray[np.float64]) -> dict[str, float]:
    r"""How the variance of the cells of a grid is divided, in a two-way layout:

    .. math:: \sum_{rc} \|x_{rc} - \bar x\|^2 = C \sum_r \|\bar x_{r \cdot} - \bar x\|^2
        + R \sum_c \|\bar x_{\cdot c} - \bar x\|^2 + \mathrm{rest}

    Args:
        cells: (R, C, S, D).

    Returns:
        The three shares: "z1" (rows), "z2" (columns), "together" (what they do only jointly).
    """
    import numpy as np

    mean = cells.mean((0, 1))
    total = float(np.square(cells - mean).sum()) or 1.0
    of_rows = cells.shape[1] * float(np.square(cells.mean(1) - mean).sum()) / total
    of_columns = cells.shape[0] * float(np.square(cells.mean(0) - mean).sum()) / total
    return {"z1": of_rows, "z2": of_columns, "together": max(0.0, 1.0 - of_rows - of_columns)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser(
        "factor_grid", "Decode z1 of some segments with z2 of others.", without=["mode", "latents"]
    )
    for side, latent, count in (("row", "z1", 4), ("column", "z2", 10)):
        parser.add_argument(
            f"--{side}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"an utterance whose {latent} to take; again for more",
        )
        parser.add_argument(
            f"--num-{side}s",
            type=int,
            default=count,
            metavar="N",
            help=f"{side}s, where none is named (default: {count})",
        )
    parser.add_argument(
        "--at", type=float, metavar="S", help="seconds into each utterance (default: where it is loudest)"
    )

    def command() -> None:
        _command(*parse(parser, argv))

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    run = open_run(request)
    import numpy as np

    from evaluation.disentanglement.segments import chosen, decoded, drawable, inferred
    from evaluation.reporting.plots import save_picture, segment_grid
    from evaluation.reporting.provenance import provenance
    from evaluation.reporting.report import write_json

    if not run.model.hierarchical:
        raise UserError(
            f"model '{run.settings.model.name}' of {run.path} has no z1 and z2 to combine. Train one that has: "
            "python -m inference.svi --model fhvae"
        )
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    wanted = {"--row": (given.row, given.num_rows), "--column": (given.column, given.num_columns)}
    rows, columns = chosen(run, request.split, wanted, given.at).values()
    cells = drawable(run, grid(run, rows, columns))
    figures = shares(cells)
    whole = np.full((len(rows) + 2, len(columns) + 2, *cells.shape[2:]), np.nan)
    whole[2:, 2:] = cells
    for side, segments in ((whole[2:, :2], rows), (whole[:2, 2:].swapaxes(0, 1), columns)):
        side[:, 0] = drawable(run, np.stack([segment.x.double().numpy() for segment in segments]))
        side[:, 1] = drawable(run, decoded(run, inferred(run, segments)))
    labels = [["original", "decoded", *(segment.label for segment in segments)] for segments in (rows, columns)]
    heading = f"{run.settings.model.name}, step {run.state['step']}: z1 of the rows with z2 of the columns"
    save_picture(segment_grid(whole, labels[0], labels[1], heading), run.path / "factor_grid.png")
    report: dict[str, Any] = {
        **provenance("factor_grid", run, request),
        "num_sequences": len(rows) + len(columns),
        "rows": [segment.described() for segment in rows],
        "columns": [segment.described() for segment in columns],
        "metrics": {f"share_{name}": {"mean": share, "stderr": None} for name, share in figures.items()},
    }
    write_json(run.path / "factor_grid.json", report)
    if request.json is not None:
        write_json(request.json, report)
    print(
        f"of the variance of {len(rows)} x {len(columns)} segments, z1 of the rows makes {100 * figures['z1']:.0f} %, "
        f"z2 of the columns {100 * figures['z2']:.0f} %, and {100 * figures['together']:.0f} % both only together"
    )
    say(f"wrote {run.path / 'factor_grid.png'} and {run.path / 'factor_grid.json'}")


if __name__ == "__main__":
    sys.exit(main())
