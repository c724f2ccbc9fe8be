"""From blocks of noisy speech to estimates of clean speech: the program, put together for a batch."""

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
from inference.handlers.free_running import free_running
from inference.observation.noise import Noise, NoiseParameters
from inference.observation.past import sampled_past
from inference.observation.settings import build_noise
from inference.posterior.evidence import evidence
from inference.posterior.methods import method
from inference.posterior.problem import Problem, causal, frames_independent
from inference.runs import Run, pick_dtype

__all__ = ["Estimate", "denoise", "posed", "stft_of"]


class Estimate(NamedTuple):
    """What was made of a block.

    Attributes:
        gain: the Wiener gain (T, F).
        noise: W (F, K) and H (K, T).
        objective: the method's own, in nats.
        seconds: of computing, the block's share of its batch's.
        rates: what else the method reports, by name.
    """

    gain: NDArray[np.float64]
    noise: tuple[NDArray[np.float64], NDArray[np.float64]]
    objective: float
    seconds: float
    rates: dict[str, float]


def stft_of(run: Run) -> Stft:
    """The front end of a prior.

    Raises:
        UserError: for one that is no STFT.
    """
    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    if type(frontend) is not Stft:
        raise UserError(
            f"{run.path} has data.frontend={run.settings.data.frontend}: an observation is one of an STFT. Take a run "
            "with data.frontend=stft."
        )
    return frontend


def posed(run: Run, batch: Sequence[Block], settings: EnhanceSettings, spectra: Sequence[Tensor] | None) -> Problem:
    """The observed program of a batch: prior, observation, and a guide to start from.

    Args:
        run: the prior.
        batch: blocks.
        settings: of noise and inference.
        spectra: W (F, K) of each block's noise, where it is known.
    """
    dtype = pick_dtype(run.settings.dtype)
    lengths = torch.tensor([len(block.x) for block in batch])
    y = pad_sequence([block.x for block in batch]).to(device=run.settings.device, dtype=dtype)
    known = None if spectra is None else torch.stack(list(spectra)).to(y)
    observation = build_noise(settings.noise, y, spectra=known)
    return Problem(
        run.model,
        run.guide,
        y,
        lengths,
        observation,
        sampled_past(observation) if settings.inference.past == "sampled" else free_running(),
        remembers=remembers(run.guide, run.settings.guide, run.model.latents),
        independent=frames_independent(run.model.parents(run.settings.model)),
        causal=causal(run.guide.parents(run.settings.guide, run.model.latents)),
    )


def denoise(
    run: Run,
    batch: Sequence[Block],
    settings: EnhanceSettings,
    name: str,
    *,
    spectra: Sequence[Tensor] | None = None,
    particles: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> list[Estimate]:
    """Infer clean speech in each block.

    Args:
        run: the prior.
        batch: blocks, of similar length.
        settings: of noise and inference.
        name: the method's name.
        spectra: W (F, K) of each block's noise, where it is known.
        particles: of the estimate of log p(y) at the end, `rates["evidence_per_frame"]`; 0: none.
        progress: called after each step.
    """
    started = time.perf_counter()
    problem = posed(run, batch, settings, spectra)
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
