r"""Inference by gradients: a guide, some parameters of it, and Adam on the bound of the observed program.

.. math::
    \phi \leftarrow \phi + \epsilon \nabla_\phi \big\{E_{q_\phi}[\log p(y \mid z)] - KL(q_\phi(z \mid y), p(z))\big\}

Before each run but the first the observation takes an M-step in what it learns (`inference.observation.noise`). Three
methods differ in the guide alone:

- ``vem``: the guide's own weights, a copy for each recording (Leglaive et al., "A recurrent variational autoencoder for
  speech enhancement", 2020; Bie et al., "Unsupervised speech enhancement using dynamical variational autoencoders",
  2022, Alg. 1);
- ``refine``: offsets of what the guide's networks say, in each frame (`inference.estimation.refinement`; Kim et al.,
  "Semi-amortized variational autoencoders", 2018);
- ``point``: z itself, a point mass at the maximum of p(y, z) (Leglaive et al., 2020, "PEEM", Sec. 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from guides.core.guide import Guide
from inference.estimation.refinement import Refined, frozen
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Objective, Terms
from inference.posterior.individual import Individual
from inference.posterior.point import Point
from inference.posterior.problem import InferenceSettings, Posterior, Problem, Progress, check_finite

__all__ = ["fit", "point", "refine", "vem", "wiener"]

RATES = {"vem": 5e-3, "refine": 0.02, "point": 0.02}
"""Adam's learning rate where the settings name none; that of vem is the public code's."""


def vem(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Train the guide's weights further on each recording."""
    guide = Individual(problem.model, problem.guide, len(problem.lengths))
    return fit(problem, guide, guide.trained, settings, RATES["vem"], progress)


def refine(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Train offsets of the guide's conditionals in each frame of each recording; its weights stay."""
    guide = Refined(problem.model, problem.guide, problem.y, problem.lengths, remembers=problem.remembers)
    return fit(problem, guide, guide.offsets.parameters(), settings, RATES["refine"], progress)


def point(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Train z itself, from the guide's mean."""
    guide = Point.of(problem.model, problem.guide, problem.y, problem.lengths)
    return fit(problem, guide, guide.parameters(), settings, RATES["point"], progress)


def fit(
    problem: Problem,
    guide: Guide,
    parameters: Iterable[nn.Parameter],
    settings: InferenceSettings,
    lr: float,
    progress: Progress = lambda: None,
) -> Posterior:
    """Maximise the bound over some parameters of a guide.

    Args:
        problem: the observed program.
        guide: whose draws it is replayed against.
        parameters: what is trained; the model is not, nor what it shares with the guide.
        settings: how long and how fast.
        lr: the learning rate where the settings name none.
        progress: called after each step.

    Raises:
        UserError: where the bound is no number.
    """
    trained = list(parameters)
    optimizer = torch.optim.Adam(trained, lr=lr if settings.lr is None else settings.lr)
    objective = Objective(problem.model, guide, settings.objective, settings.draws)
    learns, trajectory = problem.observation.learns, list[Terms]()
    problem.observation.learns = ""
    latents = mean_latents() if settings.latents == "mean" else nullcontext()
    with frozen(problem.model), torch.enable_grad(), problem.program(), latents:
        for step in range(settings.steps + 1):
            bound = objective(problem.y, problem.lengths)
            check_finite(bound.terms.elbo, step)
            trajectory.append(bound.terms)
            if step < settings.steps:
                optimizer.zero_grad(set_to_none=True)
                bound.loss.backward()
                optimizer.step()
                progress()
            problem.observation.learns = learns
        problem.observation.learns = ""
        gain, speech = wiener(problem, guide, 1 if settings.latents == "mean" else settings.wiener_draws)
        problem.observation.learns = learns
    return Posterior(gain, speech, trajectory, {}, guide)


@torch.no_grad()
def wiener(problem: Problem, guide: Guide, draws: int, source: int = 0) -> tuple[Tensor, Tensor]:
    """The Wiener gain of a source and its variance g v, averaged over draws of a guide, (T, N, F) each.

    Handlers of the observed program are in force already.
    """
    gains, speech = [], []
    for _ in range(draws):
        drawn = poutine.trace(guide).get_trace(problem.y, problem.lengths)
        with poutine.block():
            poutine.replay(problem.model, drawn)(problem.y, problem.lengths)
        heard = problem.observation.heard
        gains.append(heard.wiener(source))
        speech.append(heard.signals[source])
    return torch.stack(gains).mean(0), torch.stack(speech).mean(0)
