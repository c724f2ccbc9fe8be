"""Inference of clean speech in a batch of blocks: the observed program, and the estimates of a method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from evaluation.enhance.settings import EnhanceSettings
from evaluation.recordings.blocks import Block
from inference.estimation.refinement import remembers
from inference.observation.mixture import Mixture, MixtureGuide
from inference.observation.noise import Noise, NoiseParameters
from inference.observation.past import own_past, sampled_past
from inference.observation.settings import build_noise
from inference.posterior.evidence import evidence
from inference.posterior.methods import method
from inference.posterior.problem import Problem, causal, frames_independent
from inference.runs import Run, pick_dtype

__all__ = ["Estimate", "denoise", "observed_program", "same_front_end", "stft_of"]


class Estimate(NamedTuple):
    """The estimate of a block's clean speech.

    Attributes:
        gain: the Wiener gain (T, F).
        noise: W (F, K) and H (K, T).
        objective: the method's objective, in nats.
        seconds: computing time, the block's share of that of its batch.
        rates: further figures of the method, by name.
    """

    gain: NDArray[np.float64]
    noise: tuple[NDArray[np.float64], NDArray[np.float64]]
    objective: float
    seconds: float
    rates: dict[str, float]


def stft_of(run: Run) -> Stft:
    """The front end of a prior.

    Raises:
        UserError: The front end is not an STFT.
    """
    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    if type(frontend) is not Stft:
        raise UserError(
            f"{run.path} has data.frontend={run.settings.data.frontend}: observations are modelled in the STFT domain. "
            "Use a run with data.frontend=stft."
        )
    return frontend


def same_front_end(runs: Sequence[Run], argument: str) -> None:
    """Check that all priors have the same transform.

    Raises:
        UserError: They differ in a setting, which the message names.
    """
    for run in runs[1:]:
        ours, theirs = stft_of(runs[0]), stft_of(run)
        for key in ("rate", "window", "hop"):
            if getattr(ours, key) != getattr(theirs, key):
                raise UserError(
                    f"{argument} {run.path} has data.{key}={getattr(theirs, key)}, {runs[0].path} "
                    f"{getattr(ours, key)}: all priors of a recording need the same transform. Train both with "
                    f"the same "
                    f"data.{key}."
                )


def observed_program(
    runs: Sequence[Run],
    batch: Sequence[Block],
    settings: EnhanceSettings,
    spectra: Sequence[Tensor] | None = None,
    *,
    noisy: bool = True,
    reads: Sequence[Tensor] | None = None,
) -> Problem:
    """The observed program of a batch: prior, observation, and the initial guide.

    Args:
        runs: the prior of each source; one for speech in noise.
        batch: the blocks.
        settings: settings of noise and inference.
        spectra: W (F, K) of each block's noise, if it is known.
        noisy: whether there is noise besides the sources.
        reads: the input (T, N, F) of each source's guide, for several sources; None: y.
    """
    run = runs[0]
    dtype = pick_dtype(run.settings.dtype)
    lengths = torch.tensor([len(block.x) for block in batch])
    y = pad_sequence([block.x for block in batch]).to(device=run.settings.device, dtype=dtype)
    known = None if spectra is None else torch.stack(list(spectra)).to(y)
    observation = build_noise(settings.noise, y, sources=len(runs), spectra=known, noisy=noisy)
    model, guide = run.model, run.guide
    if len(runs) > 1:
        model = Mixture([prior.model for prior in runs])
        guide = MixtureGuide(model, [prior.guide for prior in runs], reads)
    return Problem(
        model,
        guide,
        y,
        lengths,
        observation,
        sampled_past(observation) if settings.inference.past == "sampled" else own_past(),
        remembers=all(remembers(r.guide, r.settings.guide, r.model.latents) for r in runs),
        independent=all(frames_independent(r.model.parents(r.settings.model)) for r in runs),
        causal=len(runs) == 1 and causal(run.guide.parents(run.settings.guide, run.model.latents)),
    )


def denoise(
    run: Run,
    batch: Sequence[Block],
    settings: EnhanceSettings,
    name: str,
    *,
    spectra: Sequence[Tensor] | None = None,
    noise_run: Run | None = None,
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
        particles: particles of the estimate of log p(y), `rates["evidence_per_frame"]`; 0: no estimate.
        progress: called after each step.
    """
    started = time.perf_counter()
    runs = [run] if noise_run is None else [run, noise_run]
    problem = observed_program(runs, batch, settings, spectra, noisy=noise_run is None)
    torch.manual_seed(settings.inference.seed)
    found = method(name)(problem, settings.inference, progress)
    observation = problem.observation
    assert isinstance(observation, Noise)
    parameters = NoiseParameters(*(v.double().cpu() for v in observation.parameters))
    gains, objective = found.gain.double().cpu(), found.objective.double().cpu()
    per_frame = (time.perf_counter() - started) / float(problem.lengths.sum())
    if particles:
        found.rates["evidence_per_frame"] = evidence(problem, particles).cpu() / problem.lengths
    made = []
    for n, frames in enumerate(problem.lengths.tolist()):
        noise = parameters.w[n].numpy(), parameters.h[n, :, :frames].numpy()
        rates = {key: float(value[n]) for key, value in found.rates.items()}
        made.append(Estimate(gains[:frames, n].numpy(), noise, float(objective[n]), per_frame * frames, rates))
    return made
