r"""A common criterion for all methods: an estimate of log p(y) at a method's final W, H and g.

The objectives of the methods are not comparable: a bound, the density at a point, the density of a chain's state. All
of them result in a program with fixed W, H and g, whose evidence is estimated in the same way: the run's guide is
refined (`inference.estimation.refinement`) and used as proposal of a particle filter, or, for a model without a step
or an observation that couples frames, of importance weights. Both are lower bounds in expectation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inference.estimation.importance import estimate
from inference.estimation.refinement import refine
from inference.particles.particle_filter import smc
from inference.posterior.problem import Problem

__all__ = ["evidence"]


def evidence(problem: Problem, particles: int, *, steps: int = 100, seed: int = 0) -> Tensor:
    """An estimate of log p(y) of each sequence, in nats, (N,).

    Args:
        problem: the observed program, with the final W, H and g of a method.
        particles: K.
        steps: gradient steps of the proposal's refinement.
        seed: the seed of the noise, the same for every method.
    """
    learns, problem.observation.learns = problem.observation.learns, ""
    model, y, lengths = problem.model, problem.y, problem.lengths
    seeds = [f"{seed}/evidence/{n}" for n in range(len(lengths))]
    try:
        with torch.random.fork_rng(), problem.program():
            torch.manual_seed(seed)
            guide = refine(model, problem.guide, y, lengths, remembers=problem.remembers, steps=steps)
            if model.stepwise and problem.observation.framewise:
                with torch.no_grad():
                    return smc(model, guide, y, lengths, particles, seeds=seeds, keep=False).log_evidence
            return estimate(model, guide, y, lengths, particles, chunk=4, seeds=seeds).iwae
    finally:
        problem.observation.learns = learns
