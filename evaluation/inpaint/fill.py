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

from corpora.frontends.stft import Stft
from evaluation.recordings.blocks import Block
from evaluation.restoration.program import observed_program
from evaluation.restoration.settings import RestorationSettings
from inference.observation.mask import filled, interpolated
from inference.posterior.methods import method
from inference.runs import Run

__all__ = ["consistent_phase", "predictive"]

ROUNDS = 3
"""Number of times that inference is run; the guide then reads the latest prediction in missing bins."""
ITERATIONS = 60

Samples = NDArray[np.float64]


def predictive(
    run: Run,
    batch: Sequence[Block],
    present: Sequence[Tensor],
    settings: RestorationSettings,
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
        settings: settings of inference.
        name: the name of the inference method.
        rounds: number of times that inference is run.
        progress: called after each step.
    """
    powers = [interpolated(block.x, p) for block, p in zip(batch, present, strict=True)]
    torch.manual_seed(settings.inference.seed)
    for _ in range(rounds):
        problem = observed_program([run], batch, settings, noisy=False, powers=powers, present=present)
        problem.observation.learns = ""
        speech = method(name)(problem, settings.inference, progress).speech.double().cpu()
        powers = [filled(y, p, speech[: len(y), n]) for n, (y, p) in enumerate(zip(powers, present, strict=True))]
    return powers


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
