r"""Missing spectra from the predictive of a prior, and a waveform that agrees with what is there.

Phases of missing bins are those of Griffin and Lim (1984): of the signal that is nearest to the present transform,
whose known samples, and known bins, are put back in every iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from corpora.frontends.stft import Stft
from evaluation.enhance.settings import EnhanceSettings
from evaluation.recordings.blocks import Block
from inference.estimation.refinement import remembers
from inference.observation.mask import filled, interpolated
from inference.observation.past import own_past
from inference.observation.settings import build_noise
from inference.posterior.methods import method
from inference.posterior.problem import Problem
from inference.runs import Run, pick_dtype

__all__ = ["consistent_phase", "predictive"]

ROUNDS = 3
"""Times that the guide reads what was predicted before."""
ITERATIONS = 60

Samples = NDArray[np.float64]


def predictive(
    run: Run,
    batch: Sequence[Block],
    present: Sequence[Tensor],
    settings: EnhanceSettings,
    name: str,
    *,
    rounds: int = ROUNDS,
    progress: Callable[[], object] = lambda: None,
) -> list[Tensor]:
    """Power spectra (T, F) of blocks, observed where they were, else E[v | y].

    Args:
        run: the prior.
        batch: blocks, of similar length.
        present: which of their bins were observed.
        settings: of inference; `noise.gain` says whether speech has a gain in each frame.
        name: of the method.
        rounds: how often inference is repeated with what it predicted.
        progress: called after each step.
    """
    dtype = pick_dtype(run.settings.dtype)
    device = run.settings.device
    lengths = torch.tensor([len(block.x) for block in batch])
    mask = pad_sequence([p.bool() for p in present]).to(device)
    lines = [interpolated(block.x, p) for block, p in zip(batch, present, strict=True)]
    y = pad_sequence(lines).to(device=device, dtype=dtype)
    real = (torch.arange(len(y))[:, None] < lengths).to(device)[..., None]
    torch.manual_seed(settings.inference.seed)
    for _ in range(rounds):
        observation = build_noise(settings.noise, y, present=mask, noisy=False)
        observation.learns = ""
        problem = Problem(
            run.model,
            run.guide,
            y,
            lengths,
            observation,
            own_past(),
            remembers=remembers(run.guide, run.settings.guide, run.model.latents),
        )
        found = method(name)(problem, settings.inference, progress)
        y = filled(y, mask, found.speech) * real
    return [y[:frames, n].double().cpu() for n, frames in enumerate(lengths.tolist())]


def consistent_phase(
    power: Tensor,
    block: Block,
    present: Tensor,
    known: Samples,
    missing: NDArray[np.bool_],
    frontend: Stft,
    iterations: int = ITERATIONS,
) -> Samples:
    """Samples whose known ones, and known bins, are kept.

    Args:
        power: observed and predicted (T, F).
        block: what was observed, padded.
        present: which bins were, (T, F).
        known: samples of the block, divided by its scale, as the transform has them.
        missing: which of them are not known.
        frontend: the transform.
        iterations: how many.
    """
    there, amplitude = present.numpy(), power.clamp_min(0.0).sqrt().numpy()
    phase = np.exp(2j * np.pi * np.random.RandomState(0).random(amplitude.shape))
    spectrum = np.where(there, block.spectrum, amplitude * phase)
    samples = known
    for _ in range(iterations):
        samples = frontend.waveform(spectrum, len(known))
        if missing.any() and not missing.all():
            samples = np.where(missing, samples, known)
        consistent = frontend.spectrum(samples)
        phase = consistent / np.maximum(np.abs(consistent), 1e-30)
        spectrum = np.where(there, block.spectrum, amplitude * phase)
    samples = frontend.waveform(spectrum, len(known))
    return np.where(missing, samples, known) if missing.any() and not missing.all() else samples
