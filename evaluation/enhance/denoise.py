"""Inference of clean speech in a batch of blocks, and the estimates of a method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.recordings.blocks import Block
from evaluation.restoration.program import observed_program
from evaluation.restoration.settings import RestorationSettings
from inference.observation.noise import Noise, NoiseParameters
from inference.posterior.evidence import evidence
from inference.posterior.methods import method
from inference.runs import Run

__all__ = ["Estimate", "denoise"]


class Estimate(NamedTuple):
    """The estimate of a block's clean speech.

    Attributes:
        gain: the Wiener gain (T, F); complex for reverberation.
        noise: W (F, K) and H (K, T).
        objective: the method's objective, in nats.
        seconds: computing time, the block's share of that of its batch.
        rates: further figures of the method, by name.
    """

    gain: NDArray[np.float64] | NDArray[np.complex128]
    noise: tuple[NDArray[np.float64], NDArray[np.float64]]
    objective: float
    seconds: float
    rates: dict[str, float]


def denoise(
    run: Run,
    batch: Sequence[Block],
    settings: RestorationSettings,
    name: str,
    *,
    spectra: Sequence[Tensor] | None = None,
    noise_run: Run | None = None,
    observation: str = "noise",
    particles: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> list[Estimate]:
    """Infer clean speech in each block.

    Args:
        run: the prior.
        batch: blocks of similar length.
        settings: settings of noise and inference.
        name: the name of the inference method.
        spectra: W (F, K) of each block's noise, if it is known.
        noise_run: a prior of the noise, which replaces WH.
        observation: ``"noise"`` or ``"reverb"``.
        particles: particles of the estimate of log p(y), `rates["evidence_per_frame"]`; 0: no estimate.
        progress: called after each step.
    """
    started = time.perf_counter()
    runs = [run] if noise_run is None else [run, noise_run]
    problem = observed_program(runs, batch, settings, spectra, noisy=noise_run is None, observation=observation)
    torch.manual_seed(settings.inference.seed)
    found = method(name)(problem, settings.inference, progress)
    noise_model = problem.observation
    assert isinstance(noise_model, Noise)
    parameters = NoiseParameters(*(v.double().cpu() for v in noise_model.parameters))
    gains = found.gain.to(torch.promote_types(found.gain.dtype, torch.float64)).cpu()
    objective = found.objective.double().cpu()
    per_frame = (time.perf_counter() - started) / float(problem.lengths.sum())
    if particles:
        found.rates["evidence_per_frame"] = evidence(problem, particles).cpu() / problem.lengths
    made = []
    for n, frames in enumerate(problem.lengths.tolist()):
        noise = parameters.w[n].numpy(), parameters.h[n, :, :frames].numpy()
        rates = {key: float(value[n]) for key, value in found.rates.items()}
        made.append(Estimate(gains[:frames, n].numpy(), noise, float(objective[n]), per_frame * frames, rates))
    return made
