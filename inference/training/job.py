"""The objects of one training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inference.objectives.elbo import Objective
from inference.settings.tree import Settings
from inference.training.distributed import ALONE, World
from inference.training.optimisers import Optimiser
from inference.training.reading.batches import Data
from inference.training.reading.readers import StreamedData
from inference.training.recorded_step import RecordedStep

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from models.dvae import DVAE

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """The fixed objects of a training; `TrainState` and the weights change from step to step."""

    run: Path
    settings: Settings
    model: DVAE
    guide: Guide
    objective: Objective
    optimizer: Optimiser
    train: Data | StreamedData
    valid: Data
    total_steps: int
    device: torch.device
    dtype: torch.dtype
    world: World = ALONE
    captured: RecordedStep | None = None
