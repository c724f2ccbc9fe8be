"""What each dimension of a latent does: ``python -m evaluation.traverse RUN``.

Moves one dimension of z1 or z2 of some segments through [-3, 3], leaves the rest, and decodes: Figures 11 to 14 of
Hsu, Zhang & Glass (2017). Leaves a picture of each dimension in ``RUN/traverse/``, and ``traverse.json`` in the run
folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError, nearest
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evaluation.disentanglement.segments import Segment
    from inference.runs import Run

__all__ = ["main", "traversed"]

FARTHEST = 3.0


def traversed(
    run: Run, segments: Sequence[Segment], latent: str, dims: Sequence[int], values: Sequence[float]
) -> NDArray[np.float64]:
    """Segments decoded with one dimension of a latent set to a value, everything else as the guide infers it.

    Returns:
        Frames of every dimension, segment and value, (dims, K, values, S, D).
    """
    import torch

    from evaluation.disentanglement.segments import decoded, inferred

    own = inferred(run, segments)
    shape = (len(dims), len(segments), len(values))
    varied = {name: value[None, :, None].repeat(len(dims), 1, len(values), 1) for name, value in own.items()}
    for place, dim in enumerate(dims):
        varied[latent][place, :, :, dim] = torch.tensor(values).to(own[latent])
    made = decoded(run, {name: value.flatten(0, 2) for name, value in varied.items()})
    return made.reshape(*shape, *made.shape[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser(
        "traverse", "Move each dimension of z1 and z2 through [-3, 3].", without=["mode", "latents"]
    )
    add = parser.add_argument
    add("--latent", action="append", default=[], metavar="Z", help="z1 or z2; again for more (default: all)")
    add("--dim", action="append", default=[], type=int, metavar="K", help="from 0; again for more (default: all)")
    add("--utterance", action="append", default=[], metavar="NAME", help="whose segment to take; again for more")
    add("--num", type=int, default=5, metavar="N", help="segments, where none is named (default: %(default)s)")
    add("--at", type=float, metavar="S", help="seconds into each utterance (default: where it is loudest)")
    add("--values", type=int, default=9, metavar="V", help="how many from -3 to 3 (default: %(default)s)")

    def command() -> None:
        _command(*parse(parser, argv))

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    run = open_run(request)
    import numpy as np

    from evaluation.disentanglement.segments import chosen, decoded, drawable, inferred
    from evaluation.reporting.plots import save_picture, segment_grid
    from evaluation.reporting.provenance import provenance
    from evaluation.reporting.report import summarise, text_table, write_json

    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    if given.values < 2:
        raise UserError(f"--values {given.values}: expected 2 or more, -3 and 3 among them.")
    (segments,) = chosen(run, request.split, {"--utterance": (given.utterance, given.num)}, given.at).values()
    known = [name for name in run.model.latents if name.startswith("z")]
    own = inferred(run, segments)
    seeds = drawable(run, np.stack([segment.x.double().numpy() for segment in segments]))
    beside = np.stack([seeds, drawable(run, decoded(run, own))], 1)
    values = np.linspace(-FARTHEST, FARTHEST, given.values).tolist()
    names = [segment.label for segment in segments]
    metrics: dict[str, Any] = {}
    for latent in given.latent or known:
        if latent not in known:
            raise UserError(f"--latent {latent}: expected one of {', '.join(known)}.{nearest(latent, known)}")
        size = own[latent].shape[-1]
        dims = given.dim or list(range(size))
        if not all(0 <= dim < size for dim in dims):
            raise UserError(f"--dim: {latent} has dimensions 0 to {size - 1}.")
        found = drawable(run, traversed(run, segments, latent, dims, values))
        for dim, cells in zip(dims, found, strict=True):
            moved = np.sqrt(np.square(cells[:, -1] - cells[:, 0]).mean((1, 2)))
            metrics[f"{latent}_{dim}"] = summarise(moved.tolist())._asdict()
            heading = f"{run.settings.model.name}, step {run.state['step']}: dimension {dim} of {latent}"
            columns = ["original", "decoded", *(f"{value:.3g}" for value in values)]
            picture = segment_grid(np.concatenate([beside, cells], 1), names, columns, heading)
            save_picture(picture, run.path / "traverse" / f"{latent}-{dim:02d}.png")
    report = {
        **provenance("traverse", run, request),
        "num_sequences": len(segments),
        "segments": [segment.described() for segment in segments],
        "values": values,
        "metrics": metrics,
    }
    write_json(run.path / "traverse.json", report)
    if request.json is not None:
        write_json(request.json, report)
    most = sorted(metrics, key=lambda name: -metrics[name]["mean"])
    lines = [[name.replace("_", ", dimension "), f"{metrics[name]['mean']:.3f}"] for name in most]
    print(f"RMS difference of decoded features at -3 and at 3, mean of {len(segments)} segments\n")
    print(text_table(["moved", "by"], lines))
    say(f"wrote {len(metrics)} pictures to {run.path / 'traverse'}, and {run.path / 'traverse.json'}")


if __name__ == "__main__":
    sys.exit(main())
