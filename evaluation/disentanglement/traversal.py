"""The work of `evaluation.traverse`: one dimension of a latent varied, the others kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.errors import UserError, nearest
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
from evaluation.reporting.plots import save_picture
from evaluation.reporting.provenance import caption, provenance
from evaluation.reporting.report import summarise, text_table
from inference.runs import Run

__all__ = ["run_traversal", "traversed"]

LARGEST = 3.0


def run_traversal(request: Request, options: argparse.Namespace) -> None:
    """Traverse latents, write pictures and report, and print how far each dimension moves the features."""
    run = read_run(request)
    if options.values < 2:
        raise UserError(f"--values {options.values}: expected 2 or more, from -3 to 3.")
    outputs = outputs_of("traverse", request, run.settings)
    wanted = {"--utterance": (options.utterance, options.sequences)}
    (segments,) = select_segments(run, request.split, wanted, options.at).values()
    known = [name for name in run.model.latents if name.startswith("z")]
    own = inferred(run, segments)
    originals = drawable(run, np.stack([segment.x.double().numpy() for segment in segments]))
    left = np.stack([originals, drawable(run, decoded(run, own))], 1)
    values = np.linspace(-LARGEST, LARGEST, options.values).tolist()
    rows = [segment.label for segment in segments]
    columns = ["original", "decoded", *(f"{value:.3g}" for value in values)]
    metrics: dict[str, Any] = {}
    for latent in options.latent or known:
        if latent not in known:
            raise UserError(f"--latent {latent}: expected one of {', '.join(known)}.{nearest(latent, known)}")
        size = own[latent].shape[-1]
        dims = options.dim or list(range(size))
        if not all(0 <= dim < size for dim in dims):
            raise UserError(f"--dim: {latent} has dimensions 0 to {size - 1}.")
        frames = drawable(run, traversed(run, segments, latent, dims, values))
        for dim, cells in zip(dims, frames, strict=True):
            moved = np.sqrt(np.square(cells[:, -1] - cells[:, 0]).mean((1, 2)))
            metrics[f"{latent}_{dim}"] = summarise(moved.tolist())._asdict()
            heading = f"{caption(run)}: dimension {dim} of {latent} set to the value of each column"
            whole = np.concatenate([left, cells], 1)
            picture = segment_grid(whole, rows, columns, heading, colours=colours_of(run), axes=axes_of(run))
            save_picture(picture, outputs.beside("traverse") / f"{latent}-{dim:02d}.png")
    report = {
        **provenance("traverse", run, request),
        "num_sequences": len(segments),
        "segments": [segment.described() for segment in segments],
        "values": values,
        "metrics": metrics,
    }
    outputs.write(report)
    ranked = sorted(metrics, key=lambda name: -metrics[name]["mean"])
    lines = [[name.replace("_", ", dimension "), f"{metrics[name]['mean']:.3f}"] for name in ranked]
    print(f"RMS difference of decoded features at -3 and at 3, mean of {len(segments)} segments\n")
    print(text_table(["latent", "difference"], lines))
    say(f"wrote {len(metrics)} pictures to {outputs.beside('traverse')}, and {outputs.json}")


def traversed(
    run: Run, segments: Sequence[Segment], latent: str, dims: Sequence[int], values: Sequence[float]
) -> NDArray[np.float64]:
    """Segments decoded with one dimension of a latent set to a value, and the posterior means of all others.

    Returns:
        Frames of every dimension, segment and value, (dims, K, values, S, D).
    """
    own = inferred(run, segments)
    shape = (len(dims), len(segments), len(values))
    varied = {name: value[None, :, None].repeat(len(dims), 1, len(values), 1) for name, value in own.items()}
    for row, dim in enumerate(dims):
        varied[latent][row, :, :, dim] = own[latent].new_tensor(values)
    frames = decoded(run, {name: value.flatten(0, 2) for name, value in varied.items()})
    return frames.reshape(*shape, *frames.shape[1:])
