"""Weights in the format safetensors, which holds tensors and text only: the file of a run that is shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dvae_pyro.errors import UserError, first_line
from dvae_pyro.files import write_atomically

__all__ = ["SHARED", "load_shared", "save_shared"]

SHARED = "model.safetensors"
"""Name of the file in a run folder."""
ENTRY = "dvae_pyro"
"""Name of the text in the file that has all of a checkpoint but weights, as JSON."""
PARTS = ("model", "guide")
KEPT = ("format", "model_name", "guide_name", "step", "epoch", "batch", "best")
MISSING = "package safetensors is not installed: pip install -e '.[hub]'."


def save_shared(path: Path, state: Mapping[str, Any]) -> None:
    """Write the weights of a checkpoint as ``model.NAME`` and ``guide.NAME``.

    Args:
        path: the file.
        state: the checkpoint, from `inference.checkpoints.files.load_checkpoint`.

    Raises:
        UserError: safetensors is not installed, or the file cannot be written.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise UserError(MISSING) from None
    # cloned, because the format refuses tensors that share memory
    tensors = {f"{part}.{name}": value.contiguous().clone() for part in PARTS for name, value in state[part].items()}
    text = json.dumps({key: state.get(key) for key in KEPT})
    write_atomically(path, save(tensors, metadata={ENTRY: text, "format": "pt"}))


def load_shared(path: Path) -> dict[str, Any]:
    """Read such a file as the checkpoint that it was written from, without what training needs.

    Raises:
        UserError: safetensors is not installed, or the file is damaged or another program's.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError(MISSING) from None
    weights: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            for key in names:
                part, _, name = key.partition(".")
                weights.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {first_line(error)}.") from error
    try:
        state = json.loads(metadata[ENTRY])
    except (KeyError, ValueError):
        raise UserError(
            f"{path} is not of this library: expected weights that python -m evaluation.share has written."
        ) from None
    return {**state, **weights, "optimizer": None}
