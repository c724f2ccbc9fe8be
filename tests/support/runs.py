"""Small runs with initial weights, and small corpora of sound files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import soundfile
from torch import Tensor

from inference.runs import Run, create, load_run, write_run
from inference.settings.resolve import resolve
from tests.sounds import RATE, Signal

__all__ = ["SMALL_FHVAE", "SMALL_SPECTRA", "saved_run", "write_sounds"]

SMALL_SPECTRA = ["model.bins=65", "model.z_dim=3", "data.hop=64", "dtype=float64"]
"""Settings of a small run on power spectra at 16 kHz."""
SMALL_FHVAE = ["data.frontend=log_magnitude", "model.bins=64", "model.h_dim=5", "guide.h_dim=4", "data.rate=16000"]
"""Settings of a small FHVAE or beta-VAE, after `SMALL_SPECTRA`."""


def saved_run(path: Path, model_name: str, *overrides: str, fit: Tensor | None = None, guide: str | None = None) -> Run:
    """A run folder with initial weights, loaded again.

    Args:
        path: the folder.
        model_name: name of the model.
        overrides: settings.
        fit: frames that the input transform is fitted to.
        guide: name of the guide.
    """
    settings = resolve(model_name, guide, overrides=overrides)
    model, q = create(settings)
    if fit is not None:
        model.fit_input([fit])
    write_run(path, settings, model, q)
    return load_run(path)


def write_sounds(root: Path, sounds: Mapping[str, Signal], rate: int = RATE) -> Path:
    """Write sound files by their paths below a folder; returns the folder."""
    for name, samples in sounds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, samples, rate, subtype="DOUBLE")
    return root
