"""Several runs side by side: names that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    pass

__all__ = ["run_names"]


def run_names(runs: Sequence[Path]) -> list[str]:
    """The folder's name where that is enough to tell the runs apart, else as much of the path as it takes."""
    paths = [(run.resolve().with_suffix("") if run.is_file() else run.resolve()).parts for run in runs]
    for length in range(1, max(len(p) for p in paths) + 1):
        names = ["/".join(p[-length:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError("A run is named twice. Name each run once.")
