"""What one training works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inference.objectives.elbo import Objective
from inference.settings.tree import Settings
from inference.training.batches import Data
from inference.training.distributed import ALONE, World
from inference.training.optimisers import Optimiser
from inference.training.recorded_step import RecordedStep

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from models.dvae import DVAE

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """All that the loop works with; what changes from step to step is in `TrainState` and in the weights."""

    run: Path
    settings: Settings
    model: DVAE
    guide: Guide
    objective: Objective
    optimizer: Optimiser
    train: Data
    valid: Data
    total_steps: int
    device: torch.device
    dtype: torch.dtype
    world: World = ALONE
    captured: RecordedStep | None = None
