"""Small guides of the linear model whose likelihood is known."""

from __future__ import annotations

import torch

from guides.core.family import FamilySettings
from guides.core.guide import Guide
from guides.registry import build_guide, guide_class
from models.dvae import DVAE

__all__ = ["guide_of"]


def guide_of(model: DVAE, settings: object, name: str, **small: object) -> Guide:
    """A small guide, wider than the posterior and not far from it, so that its weights have a moderate variance."""
    torch.manual_seed(3)
    cls = guide_class(settings, name)  # type: ignore[arg-type]  # attributes of a Module, settings by structure
    widths = {"x_g": [6], "g_dim": 5, "z_k": [4], "k_dim": 4, "g_z": [5]} if cls.Settings is FamilySettings else small
    guide = build_guide(model, settings, cls.Settings(name=name, **widths)).double()  # type: ignore[arg-type]  # attributes of a Module, settings by structure
    with torch.no_grad():
        guide.get_submodule("head.affine").weight.mul_(0.3)  # type: ignore[operator]  # attributes of a Module, settings by structure
    return guide
