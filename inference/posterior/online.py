r"""Online enhancement: a particle filter in one pass over the recording, frame by frame.

The guide proposes z_t given y up to frame t, particles are weighted by p(y_t, z_t | ...) / q(z_t | ...), and the
estimate of frame t is the weighted average of their Wiener gains, independent of later frames,

.. math:: \sum_k W_t^{(k)} \frac{g_t v_t^{(k)}}{g_t v_t^{(k)} + (W H)_t}\, y_t.

W is fixed; H_t is initialised with that of frame t - 1, g_t with 1 (a gain that has fallen to zero in a pause could not
recover by multiplicative updates), and both are updated a few times in each frame, for all particles together
(`inference.observation.noise`). The latency is the window of the transform, because a frame must be complete, plus the
computing time of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.objectives.elbo import Terms
from inference.observation.base import ObservedPower
from inference.observation.noise import Noise, NoiseParameters
from inference.observation.past import sampled_past
from inference.particles import particle_filter
from inference.posterior.gradient import refine
from inference.posterior.problem import InferenceSettings, Posterior, Problem, Progress

__all__ = ["FrameByFrame", "smc"]

UPDATES = 8
"""Updates of H_t and g_t in each frame."""
LEAST = 1e-3
"""Least share of a frame's energy that H_t is initialised with: multiplicative updates never leave zero."""
FIRST_PASS = 40
"""Steps of `refine` by which W is estimated, if it is not known."""


class FrameByFrame(Noise):
    """Noise whose H_t is initialised with that of the previous frame.

    Args:
        parameters: W, and buffers for H and g.
        learns: which of ``"h"`` and ``"g"`` are updated.
        floor: as of `Noise`.
        updates: number of updates in each frame.
    """

    def __init__(self, parameters: NoiseParameters, learns: str, floor: float, updates: int = UPDATES) -> None:
        super().__init__(parameters, learns, floor)
        self.updates = updates

    def likelihood(self, sources: Sequence[Tensor], y: Tensor, mask: Tensor | None, frames: slice) -> ObservedPower:
        if frames.start:
            w, h, g = self.parameters
            before = slice(frames.start - 1, frames.start)
            h = h.clone()
            least = LEAST * y.sum(-1).t()[:, None] / h.shape[1]
            h[..., frames] = torch.maximum(h[..., before], least)
            self.parameters = NoiseParameters(w, h, g)
        for _ in range(self.updates - 1):
            self._update(sources, y, mask, None, frames)
        return super().likelihood(sources, y, mask, frames)


@torch.no_grad()
def smc(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Run the particle filter over the recordings.

    Raises:
        UserError: for a model without a step, or a guide that depends on future frames.
    """
    if not problem.causal:
        raise UserError(
            "--inference smc works online, but the guide of this run depends on future frames. Train a causal guide "
            "for the same model: python -m inference.svi --guide past-markov train.model_from=RUN ..."
        )
    frames, sequences = problem.y.shape[:2]
    observation = problem.observation
    assert isinstance(observation, Noise)
    if "w" in observation.learns:  # W is unknown: estimate it in a pass over the whole recording
        refine(problem, settings_of_first_pass(settings))
    w, h, g = observation.parameters
    first = problem.y[0].sum(-1).clamp_min(torch.finfo(h.dtype).tiny)  # columns of W have a sum of one
    h = (first / h.shape[1])[:, None, None].expand_as(h).clone()
    learns = observation.learns.replace("w", "")
    following = FrameByFrame(NoiseParameters(w, h, torch.ones_like(g)), learns, observation.floor)
    gain, speech = torch.zeros_like(problem.y), torch.zeros_like(problem.y)

    def each_frame(t: int, log_weights: Tensor) -> None:
        weights = log_weights.exp()[:, None, :, None]
        observed = following.distribution
        gain[t] = (weights * observed.wiener()).sum(0)[0]
        speech[t] = (weights * observed.signals[0]).sum(0)[0]
        progress()

    seeds = [f"{settings.seed}/smc/{n}" for n in range(sequences)]
    past = sampled_past(following) if isinstance(problem.past, sampled_past) else problem.past
    online = problem._replace(observation=following, past=past)
    with online.program():
        filtered = particle_filter.smc(
            problem.model,
            problem.guide,
            problem.y,
            problem.lengths,
            settings.particles,
            seeds=seeds,
            keep=False,
            each_frame=each_frame,
        )
    observation.parameters = following.parameters
    ess = filtered.ess.sum(0) / problem.lengths.to(filtered.ess.device)
    return Posterior(gain, speech, [Terms(filtered.log_evidence, {})], {"ess": ess})


def settings_of_first_pass(settings: InferenceSettings) -> InferenceSettings:
    """Settings of a short refinement that only estimates W."""
    return InferenceSettings(steps=FIRST_PASS, past=settings.past, seed=settings.seed)
