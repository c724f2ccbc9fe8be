r"""Markov chains on z with stationary distribution p(z | y): asymptotically exact, but many steps are needed.

``metropolis`` proposes :math:`z' = z + \epsilon \xi`, ``mala`` a Langevin step along the gradient,

.. math:: z' = z + \tfrac{\epsilon^2}{2} \nabla \log p(y, z) + \epsilon \xi, \qquad \xi \sim N(0, I),

and both accept it with probability :math:`\min(1, p(y, z') q(z \mid z') / p(y, z) q(z' \mid z))` (Roberts & Tweedie,
"Exponential convergence of Langevin distributions and their discrete approximations", 1996). Proposals are accepted per
frame if the density factorises over frames, else per recording. Without the acceptance step the Langevin chain is the
unadjusted one of the public code, which has a different stationary distribution.

During burn-in W, H and g are learned by an M-step at the current z after every step, and step sizes are adapted to the
acceptance rate that is optimal in high dimensions (Roberts & Rosenthal, 2001). Afterwards all of these are fixed, and
the Wiener gain is averaged over the states of the chain.
"""

from __future__ import annotations

from typing import NamedTuple

import pyro.poutine as poutine
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.estimation.refinement import frozen
from inference.objectives.elbo import Terms
from inference.particles.log_weights import per_sequence, samples
from inference.posterior.point import Point
from inference.posterior.problem import InferenceSettings, Posterior, Problem, Progress, check_finite

__all__ = ["mala", "metropolis"]

BEST_RATES = {"mala": 0.574, "metropolis": 0.234}

Latents = dict[str, Tensor]


class _State(NamedTuple):
    """The state of a chain.

    Attributes:
        z: latents by site name.
        density: log p(y, z) of each unit of acceptance, a frame (T, N) or a recording (1, N).
        drift: gradient of log p(y, z) with respect to z; zeros for a random walk.
        sources: variance of each clean source, (T, N, F).
    """

    z: Latents
    density: Tensor
    drift: Latents
    sources: tuple[Tensor, ...]


def metropolis(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Random-walk Metropolis on z."""
    return _run(problem, settings, progress, "metropolis")


def mala(problem: Problem, settings: InferenceSettings, progress: Progress = lambda: None) -> Posterior:
    """Metropolis-adjusted Langevin steps on z; without adjustment if inference.accept=false."""
    return _run(problem, settings, progress, "mala")


def _run(problem: Problem, settings: InferenceSettings, progress: Progress, name: str) -> Posterior:
    if settings.past == "sampled":
        raise UserError(
            f"--inference {name} needs p(y | z), but with inference.past=sampled only an estimate of its logarithm is "
            "available. Set inference.past=own, or use another method."
        )
    observation, burn_in = problem.observation, int(settings.burn_in * settings.steps)
    learns, observation.learns = observation.learns, ""
    frames, sequences = problem.y.shape[:2]
    real = (torch.arange(frames)[:, None] < problem.lengths).to(problem.y.device)
    start = Point.of(problem.model, problem.guide, problem.y, problem.lengths)
    langevin = name == "mala"
    adjusts = settings.accept or not langevin
    rows = frames if problem.independent else 1
    step_size = problem.y.new_full((rows, sequences), settings.step_size)
    accepted, speech = problem.y.new_zeros(sequences), torch.zeros_like(problem.y)
    gains: Tensor | None = None
    trajectory, kept = list[Terms](), 0
    with frozen(problem.model), problem.program():
        state = _at(problem, {site: zeta.detach() for site, zeta in start.zeta.items()}, langevin)
        for step in range(settings.steps + 1):
            check_finite(per_sequence(state.density), step)
            trajectory.append(Terms(per_sequence(state.density), {}))
            if step >= burn_in:
                observed = observation.likelihood(state.sources, problem.y, real, slice(None))
                gains = observed.wiener() if gains is None else gains + observed.wiener()
                speech += observed.signals[0]
                kept += 1
            if step == settings.steps:
                break
            proposal, forward = _proposed(state, step_size, real)
            there = _at(problem, proposal, langevin)
            log_ratio = there.density - state.density
            if langevin:
                log_ratio = log_ratio + _log_move(there, state, step_size, real) - forward
            take = torch.log(torch.rand_like(log_ratio)) < log_ratio if adjusts else torch.ones_like(log_ratio).bool()
            state = _accepted(take, there, state)
            rate = take.to(step_size)
            if step >= burn_in:
                shares = real.to(rate) if problem.independent else torch.ones_like(rate)
                accepted += (rate * shares).sum(0) / shares.sum(0)
            elif adjusts:
                step_size = step_size * torch.exp((rate - BEST_RATES[name]) / (step + 1) ** 0.6)
            if step < burn_in and learns:
                observation.learns = learns
                observation.likelihood(state.sources, problem.y, real, slice(None))
                observation.learns = ""
                state = _at(problem, state.z, langevin)
            progress()
    observation.learns = learns
    rates = {"acceptance": accepted / max(1, settings.steps - burn_in)}
    assert gains is not None
    return Posterior(gains / kept, speech / kept, trajectory, rates)


def _at(problem: Problem, z: Latents, gradient: bool) -> _State:
    """Density, gradient and sources at z, under the handlers of the observed program."""
    free = {site: value.detach().requires_grad_(gradient) for site, value in z.items()}
    with torch.set_grad_enabled(gradient):
        traced = poutine.trace(poutine.condition(problem.model, data=free)).get_trace(problem.y, problem.lengths)
        traced.compute_log_prob()
        parts = [site["log_prob"] for site in samples(traced).values()]
        if problem.independent:
            density = torch.stack(torch.broadcast_tensors(*parts)).sum(0)
        else:
            density = torch.stack([per_sequence(part) for part in parts]).sum(0)[None]
    drift = {site: torch.zeros_like(value) for site, value in free.items()}
    if gradient:
        gradients = torch.autograd.grad(density.sum(), list(free.values()))
        drift = dict(zip(free, gradients, strict=True))
    sources = tuple(signal.detach() for signal in problem.observation.clean)
    return _State({site: value.detach() for site, value in free.items()}, density.detach(), drift, sources)


def _proposed(state: _State, step_size: Tensor, real: Tensor) -> tuple[Latents, Tensor]:
    """z' and log q(z' | z) of each unit of acceptance, up to a constant."""
    proposal, log_q = {}, torch.zeros_like(state.density)
    for site, z in state.z.items():
        size = _sized(step_size, z)
        noise = torch.randn_like(z) * _real(real, z)
        proposal[site] = z + 0.5 * size.square() * state.drift[site] + size * noise
        log_q = log_q - 0.5 * _summed(noise.square(), log_q)
    return proposal, log_q


def _log_move(at: _State, to: _State, step_size: Tensor, real: Tensor) -> Tensor:
    """log q(to | at) of each unit of acceptance, up to the same constant."""
    log_q = torch.zeros_like(at.density)
    for site, z in at.z.items():
        size = _sized(step_size, z)
        noise = (to.z[site] - z - 0.5 * size.square() * at.drift[site]) / size * _real(real, z)
        log_q = log_q - 0.5 * _summed(noise.square(), log_q)
    return log_q


def _accepted(take: Tensor, new: _State, old: _State) -> _State:
    """The new state where the proposal is accepted, else the old one."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(_sized(take, a), a, b)

    return _State(
        {site: choose(new.z[site], z) for site, z in old.z.items()},
        torch.where(take, new.density, old.density),
        {site: choose(new.drift[site], drift) for site, drift in old.drift.items()},
        tuple(choose(a, b) for a, b in zip(new.sources, old.sources, strict=True)),
    )


def _sized(of_part: Tensor, like: Tensor) -> Tensor:
    """A value per unit of acceptance, (T, N) or (1, N), broadcastable to (T, N, L), or (N, L) outside time."""
    return of_part[..., None] if like.dim() > 2 else of_part[0, :, None]


def _real(real: Tensor, like: Tensor) -> Tensor:
    """1 in real frames, 0 in padded ones; all ones for a site with a coarser time scale, whose density is masked."""
    return real[..., None].to(like) if like.dim() > 2 and len(like) == len(real) else torch.ones_like(like)


def _summed(squares: Tensor, like: Tensor) -> Tensor:
    """Sum over each unit of acceptance: (T, N, L) to (T, N) or (1, N)."""
    over_latent = squares.sum(-1)
    if over_latent.dim() == 1:
        return over_latent[None]
    return over_latent if len(like) > 1 else over_latent.sum(0, keepdim=True)
