"""Checkpoint files: written atomically, read without executing code, checked before use.

A checkpoint is a dictionary of tensors and plain values:

=================  ========================================================================================
``format``         1
``model_name``     the model's name, as of `--model`
``guide_name``     the guide's name, as of `--guide`
``model``          weights and buffers of the model, by name
``guide``          weights and buffers of the guide, by name
``optimizer``      state of the optimiser, or None in a file that cannot be resumed (`best.pt`)
``step``           updates of the parameters so far
``epoch``          epochs finished
``batch``          batches of the current epoch already trained on
``position``       of a streamed training set: the position of each process, or None
``validated``      step of the last validation
``best``           best validation bound (nats per frame), or None before the first validation; ``best_of`` its name
``best_step``      the step of the best bound; ``best_epoch`` its epoch
``best_weights``   ``{"model", "guide"}`` of that step, or None; `last.pt` alone is enough to resume a run
``stale_epochs``   epochs since the best bound
``rng``            state of torch's generator on the CPU; ``rng_cuda``: on the GPU, or None
``data``           fingerprint of the training data and its order
``metrics_bytes``  size of `metrics.jsonl`; later lines do not belong to this checkpoint
=================  ========================================================================================

Learning rate and KL weight are functions of ``step``; the order of the data is a function of seed and ``epoch``.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from dvae_pyro.files import write_atomically
from guides.registry import current_name
from inference.checkpoints.shared import load_shared

__all__ = ["FORMAT", "check_names", "load_checkpoint", "load_weights", "save_checkpoint", "snapshot"]

FORMAT = 1
KEYS = ("model_name", "guide_name", "model", "guide", "step", "epoch", "batch")
RENAMED = {"b_told": "b_head"}
"""Modules by their names in checkpoints of earlier versions, with today's names."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; on an error of the disk the old file stays and a `UserError` is raised."""
    # Through memory, because torch's own writer reports a full disk as an internal error.
    stream = io.BytesIO()
    torch.save({"format": FORMAT, **state}, stream)
    write_atomically(path, stream)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, or the weights of a shared run (``.safetensors``).

    Raises:
        UserError: for a file that is missing, truncated, not a checkpoint, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}.")
    if path.suffix == ".safetensors":
        return _checked(path, load_shared(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols of files that are not checkpoints
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise UserError(
                f"{path} is refused: it holds more than tensors and plain values, and loading it could run code.\n"
                "Checkpoints of this library hold nothing else. Convert a file that you trust to a plain state_dict."
            ) from error
        raise _broken(path) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise _broken(path) from error
    if not isinstance(state, dict) or "format" not in state or any(key not in state for key in KEYS):
        raise UserError(
            f"{path} is readable by torch, but is not a checkpoint of this library.\n"
            "For published DVAE weights use: python -m models.published CHECKPOINT CONFIG.ini --run RUN"
        )
    return _checked(path, state)


def _checked(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    if state["format"] != FORMAT:
        raise UserError(f"{path} has checkpoint format {state['format']}; this version reads format {FORMAT}.")
    return state


def _broken(path: Path) -> UserError:
    size = path.stat().st_size
    return UserError(
        f"{path} cannot be read as a checkpoint: it is truncated, damaged or of another format ({size} bytes).\n"
        "Restore it from a copy, or replace it by the run's other checkpoint (best.pt, last.pt)."
    )


def check_names(state: Mapping[str, Any], model_name: str, guide_name: str, path: Path) -> None:
    """Refuse a checkpoint whose model or guide is not the one of the settings."""
    for part, name in (("model", model_name), ("guide", guide_name)):
        got = current_name(state["guide_name"]) if part == "guide" else state["model_name"]
        if got != name:
            raise UserError(
                f"{path} is a checkpoint of {part} '{got}', but the settings have {part} '{name}'.\n"
                f"Use the run folder that it was written in, or train {part} '{name}' in a new run."
            )


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], what: str, path: Path) -> None:
    """Copy weights into a module, whose names (or names of earlier versions) and shapes must be exactly theirs.

    Raises:
        UserError: for a name that only one of them has, or another shape.
    """
    expected = module.state_dict()
    weights = {".".join(RENAMED.get(part, part) for part in name.split(".")): w for name, w in weights.items()}
    faults = [f"{name} is missing in the checkpoint" for name in expected if name not in weights]
    faults += [f"{name} is not in the {what}" for name in weights if name not in expected]
    faults += [
        f"{name} is {tuple(weights[name].shape)} in the checkpoint, {tuple(expected[name].shape)} in the {what}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(
            f"{path} does not fit the {what} of these settings: {faults[0]}{more}.\n"
            f"Keep the {what}.* settings that determine shapes of weights at the values that the run was trained with."
        )
    module.load_state_dict(weights)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights and buffers on the CPU, independent of later steps."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
