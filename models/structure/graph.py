"""Drawing the graphical model, unrolled over a few frames, with Pyro's `render_model` and graphviz.

The rendered Pyro program has only the declared dependences of the model; the contract tests verify that a model has no
others. (The model itself cannot be rendered: it draws its latents before their sample statements, so Pyro cannot track
dependences between them.)
"""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.inspect import render_model
from torch import Tensor

from dvae_pyro.errors import UserError, nearest
from models.structure.parents import Node, Parents, frames_of

__all__ = ["SUFFIXES", "render", "skeleton"]

SUFFIXES = (".dot", ".gv", ".svg", ".pdf", ".png")
FRAMES = 3


def skeleton(parents: Parents, frames: int = FRAMES) -> None:
    """A Pyro program with a site for each variable, ``z_1, x_1, z_2, ...``, which depends on its declared parents."""
    outside = {parent for listed in parents.values() for parent in listed if "[" not in parent}
    drawn: dict[Node, Tensor] = {}

    def value(node: Node) -> Tensor:
        if node not in drawn:
            name, t = node
            above = [value(other) for parent in parents[name] for other in frames_of(parent, t, frames)]
            mean = sum(above, torch.zeros(()))
            label = name if t < 0 else f"{name}_{t + 1}"
            drawn[node] = pyro.sample(label, dist.Normal(mean, 1.0), obs=torch.zeros(()) if name == "x" else None)
        return drawn[node]

    for name in parents:
        if name in outside:
            value((name, -1))
    for t in range(frames):
        for name in parents:
            if name not in outside:
                value((name, t))


def render(parents: Parents, file: Path) -> None:
    """Write the graph to a file, in the format of its suffix; ``.dot`` and ``.gv`` are graphviz's text format.

    Raises:
        UserError: if graphviz is missing, for another suffix, and if the file cannot be written.
    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--graph {file}: expected a file ending in {', '.join(SUFFIXES)}.{nearest(suffix, SUFFIXES)}")
    if importlib.util.find_spec("graphviz") is None:
        raise UserError(
            "--graph needs the Python package graphviz, which is not installed.\n"
            "Install it: pip install graphviz (and, for anything but .dot and .gv, Graphviz itself from graphviz.org)."
        )
    text = str(render_model(skeleton, (parents,)).source)
    try:
        if suffix in (".dot", ".gv"):
            file.write_text(text, encoding="utf-8")
            return
        run = subprocess.run(
            ["dot", f"-T{suffix[1:]}", "-o", str(file)], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        if error.filename != "dot":
            raise UserError(f"--graph {file}: {error.strerror}. Give a file in an existing folder.") from error
        raise UserError(
            f"--graph {file} needs the program dot of Graphviz, which is not on the PATH.\n"
            f"Install it (apt-get install graphviz, or graphviz.org), or write {file.with_suffix('.dot')} instead."
        ) from error
    except OSError as error:
        raise UserError(f"--graph {file} cannot be written: {error.strerror}.") from error
    if run.returncode != 0:
        raise UserError(f"--graph {file}: dot failed: {run.stderr.strip().splitlines()[0]}")
