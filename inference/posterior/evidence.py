r"""One yardstick for all methods: an estimate of log p(y) at the W, H and g that a method has ended with.

Methods report objectives of their own, which do not compare: a bound, the density at a point, that of a chain's state.
What all of them leave is a program with fixed W, H and g, whose evidence is estimated in one way for all: the run's
guide is refined for it (`inference.estimation.refinement`), and is then the proposal of a particle filter, or, where a
model has no step, of importance weights. Both are lower bounds in expectation.
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
        problem: the observed program, with the W, H and g that a method has found.
        particles: K.
        steps: gradient steps of the proposal's refinement.
        seed: of the noise, the same for every method.
    """
    learns, problem.observation.learns = problem.observation.learns, ""
    model, y, lengths = problem.model, problem.y, problem.lengths
    seeds = [f"{seed}/evidence/{n}" for n in range(len(lengths))]
    try:
        with torch.random.fork_rng(), problem.program():
            torch.manual_seed(seed)
            guide = refine(model, problem.guide, y, lengths, remembers=problem.remembers, steps=steps)
            if model.stepwise:
                with torch.no_grad():
                    return smc(model, guide, y, lengths, particles, seeds=seeds, keep=False).log_evidence
            return estimate(model, guide, y, lengths, particles, chunk=4, seeds=seeds).iwae
    finally:
        problem.observation.learns = learns
