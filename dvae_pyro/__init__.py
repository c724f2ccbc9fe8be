"""Dynamical variational autoencoders as Pyro programs.

`load` and `train` are the entry from Python, see `dvae_pyro.api`; the other modules are what every package of the
distribution may import: errors, atomic file writing, ranges, memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae_pyro.api import Latents, Run, Waveform, load, train

__all__ = ["Latents", "Run", "Waveform", "load", "train"]


def __getattr__(name: str) -> Any:
    """A name of `dvae_pyro.api`, which is imported, and torch with it, at the first use."""
    if name in __all__:
        return getattr(importlib.import_module("dvae_pyro.api"), name)
    raise AttributeError(f"module 'dvae_pyro' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
