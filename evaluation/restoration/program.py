"""The observed program of a batch of blocks: priors, observation, and guides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from evaluation.recordings.blocks import Block
from evaluation.restoration.settings import RestorationSettings
from inference.estimation.refinement import remembers
from inference.observation.mixture import Mixture, MixtureGuide
from inference.observation.noise import Noise
from inference.observation.past import own_past, sampled_past
from inference.observation.settings import build_noise, build_reverb
from inference.posterior.problem import Problem, causal, frames_independent
from inference.runs import Run, pick_dtype

__all__ = ["FRAMES_AT_ONCE", "observed_program", "same_front_end", "stft_of"]

FRAMES_AT_ONCE = 6000
"""Padded frames of a batch; `vem` needs memory for the weights and their moments of each recording in it."""


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
                    f"the same data.{key}."
                )


def observed_program(
    runs: Sequence[Run],
    batch: Sequence[Block],
    settings: RestorationSettings,
    spectra: Sequence[Tensor] | None = None,
    *,
    noisy: bool = True,
    reads: Sequence[Tensor] | None = None,
    powers: Sequence[Tensor] | None = None,
    present: Sequence[Tensor] | None = None,
    observation: str = "noise",
) -> Problem:
    """The observed program of a batch: prior, observation, and the initial guide.

    Args:
        runs: the prior of each source; one for speech in noise.
        batch: the blocks.
        settings: settings of noise and inference.
        spectra: W (F, K) of each block's noise, if it is known.
        noisy: whether there is noise besides the sources.
        reads: the input (T, N, F) of each source's guide, for several sources; None: y.
        powers: power (T, F) in place of that of each block; None: the blocks' own.
        present: whether each bin of each block was observed, bool (T, F); None: all.
        observation: ``"noise"``, or ``"reverb"``, which needs the transforms of the blocks.

    Raises:
        UserError: inference.past=sampled with several sources or missing bins.
    """
    if settings.inference.past == "sampled" and (len(runs) > 1 or present is not None):
        raise UserError(
            "inference.past=sampled needs one source and complete recordings. Set inference.past=own for mixtures and "
            "missing parts."
        )
    run = runs[0]
    powers = [block.x for block in batch] if powers is None else powers
    lengths = torch.tensor([len(power) for power in powers])
    y = pad_sequence(list(powers)).to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    known = None if spectra is None else torch.stack(list(spectra)).to(y)
    mask = None if present is None else pad_sequence(list(present)).to(y.device)
    observed: Noise
    if observation == "reverb":
        transforms = pad_sequence([torch.from_numpy(block.spectrum) for block in batch])
        transforms = transforms.to(y.device, torch.complex128 if y.dtype == torch.float64 else torch.complex64)
        observed = build_reverb(settings.reverb, settings.noise, transforms, lengths)
    else:
        observed = build_noise(settings.noise, y, sources=len(runs), spectra=known, present=mask, noisy=noisy)
    model, guide = run.model, run.guide
    if len(runs) > 1:
        model = Mixture([prior.model for prior in runs])
        guide = MixtureGuide(model, [prior.guide for prior in runs], reads)
    return Problem(
        model,
        guide,
        y,
        lengths,
        observed,
        sampled_past(observed) if settings.inference.past == "sampled" else own_past(),
        remembers=all(remembers(r.guide, r.settings.guide, r.model.latents) for r in runs),
        independent=observed.framewise and all(frames_independent(r.model.parents(r.settings.model)) for r in runs),
        causal=len(runs) == 1 and causal(run.guide.parents(run.settings.guide, run.model.latents)),
    )
