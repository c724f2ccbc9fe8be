"""Batches of samples from the model of a run, and the length of a sound in frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.griffin_lim import griffin_lim
from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from evaluation.loading.waveforms import as_power
from inference.prediction.generation import generated_batches
from inference.runs import Run

__all__ = ["num_frames", "sampled", "to_sounds"]

SECONDS = 1.6


def num_frames(frontend: Stft, seconds: float | None) -> int:
    """Number of frames T of a sound; its (T - 1) * hop samples are at most one hop shorter than `seconds`.

    Raises:
        UserError: the sound would be shorter than one hop.
    """
    frames = 1 + round((SECONDS if seconds is None else seconds) * frontend.rate) // frontend.hop
    if frames < 2:
        raise UserError(f"--seconds {seconds}: expected one hop or more, {frontend.hop / frontend.rate:g} s.")
    return frames


def sampled(run: Run, num: int, frames: int, x: str, batch: int) -> Iterator[Tensor]:
    """Frames (N, T, D) sampled from the model of a run with its seed, batch after batch."""
    for samples in generated_batches(run.model, num, frames, x=x, batch=batch, seed=run.settings.seed):
        yield samples.x.transpose(0, 1)


def to_sounds(frames: Tensor, frontend: Stft, iterations: int) -> NDArray[np.float64]:
    """Samples (N, n) of frames (N, T, D), with phases by the algorithm of Griffin and Lim; NaN for a sequence with
    values that are not finite.
    """
    sounds = np.full((len(frames), (frames.shape[1] - 1) * frontend.hop), np.nan)
    finite = frames.isfinite().flatten(1).all(1)
    if bool(finite.any()):
        inverted = griffin_lim(as_power(frontend, frames[finite]), frontend, iterations)
        sounds[finite.cpu().numpy()] = inverted.double().cpu().numpy()
    return sounds
