"""The state of a training: counters and best weights, and how they are written to and read from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from inference.checkpoints.files import save_checkpoint, snapshot
from inference.objectives.elbo import BOUNDS

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from inference.settings.tree import Settings
    from models.dvae import DVAE

__all__ = ["TrainState", "Weights", "criterion", "pack", "read", "restore", "save_best"]


class Optimiser(Protocol):
    """The interface of an optimiser that checkpoints need."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Weights = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class TrainState:
    """The state of a training between two steps.

    Attributes:
        step: updates of the parameters so far.
        epoch: epochs finished.
        batch: batches of the current epoch already trained on.
        position: this process's position in a stream; in a checkpoint, the positions of all processes.
        validated: step of the last validation.
        best: best validation bound, nats per frame.
        best_of: the name of that bound (`criterion`); empty if unknown.
        best_step, best_epoch: step and epoch of the best bound.
        best_weights: copies of the weights of that step, ``{"model": ..., "guide": ...}``.
        stale_epochs: epochs since the best bound.
        plateaus: times that the bound has not improved for `optim.plateau_epochs`.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    position: Any = None
    validated: int = 0
    best: float | None = None
    best_of: str = ""
    best_step: int = 0
    best_epoch: int = 0
    best_weights: Weights | None = None
    stale_epochs: int = 0
    plateaus: int = 0


def criterion(settings: Settings) -> str:
    """The name of the bound that selects the best weights: the trained bound, unweighted, on the validation split.

    Bounds of different objectives or numbers of draws are not comparable.
    """
    train = settings.train
    bound = BOUNDS[train.objective]
    own_output = train.scheduled_sampling.schedule is not None and settings.evaluation.mode == "gen"
    return (
        bound
        + (f" of {train.particles} particles" if bound != "elbo" else "")
        + (" on the model's own output" if own_output else "")
    )


def pack(
    state: TrainState,
    settings: Settings,
    model: DVAE,
    guide: Guide,
    *,
    optimizer: Optimiser | None = None,
    rng: Tensor | None = None,
    metrics_bytes: int = 0,
    data: str | None = None,
) -> dict[str, Any]:
    """The contents of `last.pt`, enough to resume training exactly."""
    cuda = settings.device.startswith("cuda")
    return {
        "model_name": settings.model.name,
        "guide_name": settings.guide.name,
        "model": snapshot(model),
        "guide": snapshot(guide),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        **vars(state),
        "rng": torch.get_rng_state() if rng is None else rng,
        "rng_cuda": torch.cuda.get_rng_state(settings.device) if cuda and rng is None else None,
        "metrics_bytes": metrics_bytes,
        "data": data,
    }


def read(saved: Mapping[str, Any]) -> TrainState:
    """The training state of a checkpoint."""
    return TrainState(**{name: saved[name] for name in vars(TrainState()) if name in saved})


def restore(saved: Mapping[str, Any], settings: Settings, optimizer: Optimiser) -> None:
    """Restore the state of the optimiser and of torch's generators."""
    if saved.get("optimizer") is not None:
        hyperparameters = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(saved["optimizer"])
        for group, values in zip(optimizer.param_groups, hyperparameters, strict=True):
            group.update(values)  # betas, weight decay and so on of the settings, which may have changed
    if saved.get("rng") is not None:
        torch.set_rng_state(saved["rng"])
    if saved.get("rng_cuda") is not None and settings.device.startswith("cuda"):
        torch.cuda.set_rng_state(saved["rng_cuda"], settings.device)


def save_best(path: Path, settings: Settings, state: TrainState) -> None:
    """Write `best.pt` from the best weights of the state."""
    weights = state.best_weights
    assert weights is not None
    save_checkpoint(
        path,
        {
            "model_name": settings.model.name,
            "guide_name": settings.guide.name,
            "model": weights["model"],
            "guide": weights["guide"],
            "optimizer": None,
            "step": state.best_step,
            "epoch": state.best_epoch,
            "batch": 0,
            "best": state.best,
        },
    )
