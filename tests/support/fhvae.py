"""A small FHVAE, and five segments of two utterances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guides.fhvae import FHVAEGuide, FHVAEGuideSettings
from guides.registry import build_guide
from models.core.grouping import SequenceIndex
from models.fhvae import FHVAE, FHVAESettings
from models.registry import build_model

__all__ = ["BINS", "DIM", "LENGTHS", "ROW", "data", "noise", "rows_of", "small"]

ROW = torch.tensor([0, 0, 1, 0, 1])
LENGTHS = torch.tensor([4, 4, 4, 4, 3])
DIM, BINS = 2, 3


def small(cell: str = "lstm", table: int | None = 2, **more: Any) -> tuple[FHVAE, FHVAEGuide]:
    torch.manual_seed(3)
    settings = FHVAESettings(bins=BINS, z_dim=DIM, cell=cell, h_dim=5, segment=4, **more)
    model: Any = build_model(settings)
    guide: Any = build_guide(model, settings, FHVAEGuideSettings(h_dim=4, sequences=table))
    model.double(), guide.double()
    model.fit_input([data().flatten(0, 1)])
    return model, guide


def data() -> Tensor:
    x = torch.randn(4, 5, BINS, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2.0 + 1.0
    return x * (torch.arange(4)[:, None] < LENGTHS)[..., None]


def rows_of(chosen: list[int], **more: Any) -> SequenceIndex:
    numbers = torch.tensor(chosen)
    row = ROW[numbers]
    return SequenceIndex(row, torch.bincount(ROW)[row], numbers, 2, 5, trained=True, **more)


def noise(chosen: list[int]) -> dict[str, Tensor]:
    """Numbers of its own for each segment."""
    drawn = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return {"z1": drawn[0, chosen], "z2": drawn[1, chosen]}
