r"""Power spectra of missing bins from the predictive distribution of a prior, and a waveform consistent with them.

Phases of missing bins are computed by the algorithm of Griffin and Lim (1984), with one addition: observed samples and
observed bins are restored in every iteration.
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
"""Number of times that inference is run; the guide then reads the latest prediction in missing bins."""
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
    """Power spectra (T, F) of blocks: the observed values, and E[v | y] in missing bins.

    Args:
        run: the prior.
        batch: blocks of similar length.
        present: whether each of their bins was observed, (T, F).
        settings: settings of inference; `noise.gain` enables a gain of speech in each frame.
        name: the name of the inference method.
        rounds: number of times that inference is run.
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
    """Samples with the given power spectra, in which observed samples and bins are unchanged.

    Args:
        power: observed and predicted power (T, F).
        block: the observed block.
        present: whether each bin was observed, (T, F).
        known: samples of the block, divided by its scale and padded to whole frames.
        missing: whether each sample is missing.
        frontend: the transform.
        iterations: number of iterations.
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
