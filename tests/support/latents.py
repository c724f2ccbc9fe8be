"""Runs and pairs of utterances for tests of what latents represent."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.runs import Run
from inference.settings.resolve import resolve
from tests.sounds import voice
from tests.support.runs import SMALL_SPECTRA, saved_run, write_sounds

__all__ = ["made_run", "write_pair"]


def made_run(path: Path, model_name: str, *overrides: str) -> Run:
    """A small run of a model, without trimming, whose input transform is fitted to random frames."""
    settings = [*SMALL_SPECTRA, "data.trim_db=null", *overrides]
    bins = resolve(model_name, overrides=settings).model.bins
    return saved_run(path, model_name, *settings, fit=torch.rand(20, bins, dtype=torch.float64))


def write_pair(root: Path) -> Path:
    """Write the utterances a and b of split test."""
    return write_sounds(root, {f"test/{name}/{name}.wav": voice(0.3 + 0.1 * i) for i, name in enumerate("ab")})
