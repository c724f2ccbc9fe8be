"""Checkpoints: written whole or not at all, read without running code, refused with the reason.

A checkpoint is a dictionary of tensors and plain values:

=================  ========================================================================================
``format``         1
``model_name``     as `--model` names it
``guide_name``     as `--guide` names it
``model``          weights and buffers of the model, by name
``guide``          the same of the guide
``optimizer``      state of the optimiser, or None where training cannot go on (`best.pt`)
``step``           updates of the parameters so far
``epoch``          epochs finished
``batch``          batches of the current epoch already trained on
``validated``      step of the last validation
``best``           best validation bound (nats per frame), or None before the first validation
``best_step``      its step, and ``best_epoch`` its epoch
``best_weights``   ``{"model", "guide"}`` of that step, or None: so `last.pt` alone holds all that a run needs
``stale_epochs``   epochs since then
``rng``            state of torch's generator on the CPU; ``rng_cuda`` on the GPU, or None
``data``           fingerprint of the training data and its order
``metrics_bytes``  size of `metrics.jsonl`; later lines do not belong to this checkpoint
=================  ========================================================================================

Learning rate and KL weight are functions of ``step``, and the order of the data one of seed and ``epoch``.
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

__all__ = ["FORMAT", "check_names", "load_checkpoint", "load_weights", "save_checkpoint", "snapshot"]

FORMAT = 1
KEYS = ("model_name", "guide_name", "model", "guide", "step", "epoch", "batch")


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; if the disk refuses, the old file stays and `UserError` says why."""
    # Through memory, because torch's own writer reports a full disk as an internal error.
    stream = io.BytesIO()
    torch.save({"format": FORMAT, **state}, stream)
    write_atomically(path, stream)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; a cut, foreign or harmful file is refused."""
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols of what is no checkpoint
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise UserError(
                f"{path} is refused: it holds more than tensors and plain values; it could run code.\n"
                "Checkpoints of this library never do; convert one you trust to a plain state_dict first."
            ) from error
        raise _broken(path) from error
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise _broken(path) from error
    if not isinstance(state, dict) or "format" not in state or any(key not in state for key in KEYS):
        raise UserError(
            f"{path} is no checkpoint of this library, although torch can read it.\n"
            "For published DVAE weights use: python -m models.published CHECKPOINT CONFIG.ini --run RUN"
        )
    if state["format"] != FORMAT:
        raise UserError(f"{path} has checkpoint format {state['format']}; this version reads format {FORMAT}.")
    return state


def _broken(path: Path) -> UserError:
    size = path.stat().st_size
    return UserError(
        f"{path} cannot be read as a checkpoint: it is cut short, damaged or something else ({size} bytes).\n"
        "Restore it from a copy, or put the run's other checkpoint (best.pt, last.pt) in its place."
    )


def check_names(state: Mapping[str, Any], model_name: str, guide_name: str, path: Path) -> None:
    """Refuse a checkpoint of another model or guide than the settings name."""
    for part, name in (("model", model_name), ("guide", guide_name)):
        got = current_name(state["guide_name"]) if part == "guide" else state["model_name"]
        if got != name:
            raise UserError(
                f"{path} is a checkpoint of {part} '{got}', but the settings say {part} '{name}'.\n"
                f"Use the run folder it was made in, or train {part} '{name}' in a new run."
            )


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], what: str, path: Path) -> None:
    """Put weights into a module, which must have exactly these names and shapes."""
    own = module.state_dict()
    faults = [f"{name} is missing in the checkpoint" for name in own if name not in weights]
    faults += [f"{name} is not in the {what}" for name in weights if name not in own]
    faults += [
        f"{name} is {tuple(weights[name].shape)} in the checkpoint, {tuple(own[name].shape)} in the {what}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(
            f"{path} does not fit the {what} of these settings: {faults[0]}{more}.\n"
            f"Leave {what}.* settings that change the weights' shapes as the run was trained with them."
        )
    module.load_state_dict(dict(weights))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights and buffers, on the CPU, which later steps do not touch."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
