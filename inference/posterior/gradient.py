r"""Gradient-based inference: some parameters of a guide are optimised by Adam on the bound of the observed program.

.. math::
    \phi \leftarrow \phi + \epsilon \nabla_\phi \big\{E_{q_\phi}[\log p(y \mid z)] - KL(q_\phi(z \mid y), p(z))\big\}

In each run except the first, the observation takes an M-step for its learned parameters
(`inference.observation.noise`). The three methods differ only in the optimised parameters:

- ``vem``: the guide's weights, in a copy for each recording (Leglaive et al., "A recurrent variational autoencoder for
  speech enhancement", 2020; Bie et al., "Unsupervised speech enhancement using dynamical variational autoencoders",
  2022, Alg. 1);
- ``refine``: offsets of the guide's outputs in each frame (`inference.estimation.refinement`; Kim et al.,
  "Semi-amortized variational autoencoders", 2018);
- ``point``: z itself, a point mass at the maximum of p(y, z) (Leglaive et al., 2020, "PEEM", Sec. 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from guides.core.guide import Guide
from inference.estimation.refinement import Refined, frozen
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Objective, Terms
from inference.observation.mixture import Mixture, MixtureGuide
from inference.posterior.individual import Individual
from inference.posterior.point import Point
from inference.posterior.problem import InferenceSettings, Posterior, Problem, Progress, check_finite
from models.dvae import DVAE

__all__ = ["fit", "point", "refine", "vem", "wiener"]

RATES = {"vem": 5e-3, "refine": 0.02, "point": 0.02}
"""Adam's default learning rates; that of vem is from the public code."""


def vem(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Train the guide's weights further on each recording."""
    guide = _of_each_source(problem, lambda model, guide: Individual(model, guide, len(problem.lengths)))
    trained = [p for module in guide.modules() if isinstance(module, Individual) for p in module.trained]
    return fit(problem, guide, trained, settings, RATES["vem"], progress)


def refine(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Train offsets of the guide's conditionals in each frame of each recording; its weights are fixed."""
    y, lengths = problem.y, problem.lengths
    guide = _of_each_source(
        problem, lambda model, guide: Refined(model, guide, y, lengths, remembers=problem.remembers)
    )
    offsets = [p for module in guide.modules() if isinstance(module, Refined) for p in module.offsets.parameters()]
    return fit(problem, guide, offsets, settings, RATES["refine"], progress)


def _of_each_source(problem: Problem, build: Callable[[DVAE, Guide], Guide]) -> Guide:
    """A guide built from the problem's guide; for a mixture, from the guide of each source."""
    if not isinstance(problem.model, Mixture):
        return build(problem.model, problem.guide)
    assert isinstance(problem.guide, MixtureGuide)
    pairs: Any = zip(problem.model.sources, problem.guide.guides, strict=True)
    return MixtureGuide(problem.model, [build(model, guide) for model, guide in pairs], problem.guide.reads)


def point(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Train z itself, starting at the guide's mean."""
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
        guide: the guide.
        parameters: the trained parameters; the model, and networks that the guide shares with it, are fixed.
        settings: number of steps, learning rate and objective.
        lr: the learning rate if the settings have none.
        progress: called after each step.

    Raises:
        UserError: if the bound is not finite.
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
        gains, speech = wiener(problem, guide, 1 if settings.latents == "mean" else settings.wiener_draws)
        problem.observation.learns = learns
    return Posterior(gains[0], speech, trajectory, {}, guide, tuple(gains[1:]))


@torch.no_grad()
def wiener(problem: Problem, guide: Guide, draws: int) -> tuple[list[Tensor], Tensor]:
    """The Wiener gain of every source, and g v of the first, averaged over draws of a guide, (T, N, F) each.

    It must be called under the handlers of the observed program.
    """
    gains: list[Tensor] = []
    speech = torch.zeros_like(problem.y)
    for _ in range(draws):
        drawn = poutine.trace(guide).get_trace(problem.y, problem.lengths)
        poutine.replay(problem.model, drawn)(problem.y, problem.lengths)
        observed = problem.observation.distribution
        shares = [observed.wiener(k) / draws for k in range(len(observed.signals))]
        gains = [a + b for a, b in zip(gains, shares, strict=True)] if gains else shares
        speech += observed.signals[0] / draws
    return gains, speech
