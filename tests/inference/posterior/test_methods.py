"""Methods of inference against grid integration, gradients and closed forms, on priors small enough for that."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.handlers.free_running import free_running
from inference.observation.noise import Noise, NoiseParameters
from inference.posterior.chains import mala, metropolis
from inference.posterior.evidence import evidence
from inference.posterior.gradient import point, refine, vem
from inference.posterior.problem import InferenceSettings, Problem, frames_independent
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced

BINS = 4
METHODS = {"vem": vem, "refine": refine, "point": point, "mala": mala, "metropolis": metropolis}


def _prior(model: str = "vae", *overrides: str) -> tuple[Any, Any]:
    """A prior in float64 whose decoder depends on z strongly."""
    common = [f"model.bins={BINS}", "model.z_dim=2", "dtype=float64", "model.variance_floor=0", *overrides]
    prior, guide = create(resolve(model, overrides=common))
    with torch.no_grad():
        for name, p in prior.named_parameters():
            if name.startswith(("z_x", "likelihood")) and p.dim() == 2:
                p.mul_(2.5)
    return prior, guide


def _problem(model: str, sequences: int, frames: int = 1, learns: str = "", *overrides: str) -> Problem:
    """The same observed power in every sequence."""
    torch.set_default_dtype(torch.float64)
    prior, guide = _prior(model, *overrides)
    one = torch.rand(frames, 1, BINS, generator=torch.Generator().manual_seed(3)).double() * 3.0
    w, h = torch.full((sequences, BINS, 1), 0.2), torch.full((sequences, 1, frames), 1.0)
    observation = Noise(NoiseParameters(w, h, torch.full((sequences, 1, frames), 0.8)), learns)
    y = one.repeat(1, sequences, 1)
    lengths = torch.full((sequences,), frames)
    independent = frames_independent(prior.parents(resolve(model).model))
    return Problem(prior, guide, y, lengths, observation, free_running(), independent=independent)


def _posterior_by_grid(problem: Problem) -> tuple[Tensor, Tensor]:
    """E[gain] (F,) and E[z] (2,) of a single frame, by summation over a fine grid."""
    axis = torch.linspace(-6.0, 6.0, 301)
    z = torch.cartesian_prod(axis, axis)
    v = problem.model.decoder(z).mean.detach()  # type: ignore[operator]  # an attribute of a module
    assert isinstance(problem.observation, Noise)
    parameters = problem.observation.parameters
    signal = v * parameters.g[0, 0, 0]
    x = signal + parameters.variance()[0, 0]
    log_p = -(x.log() + problem.y[0, 0] / x).sum(-1) - 0.5 * z.square().sum(-1)
    weight = log_p.softmax(0)[:, None]
    return (weight * signal / x).sum(0), (weight * z).sum(0)


@pytest.mark.parametrize("name", ["mala", "metropolis"])
def test_accepted_chains_have_the_right_stationary_distribution(name: str) -> None:
    """400 chains of 200 states: the mean gain is within 5 standard errors of grid integration, and the starting point
    (the mean of an untrained guide) is not.
    """
    problem = _problem("vae", 400)
    torch.manual_seed(1)
    found = METHODS[name](problem, InferenceSettings(steps=200, step_size=0.3, burn_in=0.4))
    expected, _ = _posterior_by_grid(problem)
    mean, error = found.gain[0].mean(0), found.gain[0].std(0) / 400**0.5
    assert bool(((mean - expected).abs() < 5.0 * error).all())
    assert float(error.max()) < 0.01
    start = point(problem, InferenceSettings(steps=0)).gain[0, 0]
    assert float((start - expected).abs().max()) > 10.0 * float(error.max())
    assert 0.1 < float(found.rates["acceptance"].mean()) < 0.8


def test_without_acceptance_the_langevin_chain_is_biased() -> None:
    problem = _problem("vae", 600)
    found = mala(problem, InferenceSettings(steps=200, step_size=1.1, burn_in=0.4, accept=False))
    expected, _ = _posterior_by_grid(problem)
    error = found.gain[0].std(0) / 600**0.5
    assert float(((found.gain[0].mean(0) - expected).abs() / error).max()) > 8.0
    assert bool((found.rates["acceptance"] == 1.0).all())


def test_frames_are_accepted_by_themselves_only_where_they_are_independent() -> None:
    """A recording of 6 frames of a VAE: each frame is accepted by itself, and has its own posterior."""
    problem = _problem("vae", 200, frames=6)
    torch.manual_seed(2)
    found = mala(problem, InferenceSettings(steps=150, step_size=0.3, burn_in=0.4))
    for t in (0, 5):
        alone = problem._replace(y=problem.y[t : t + 1])
        expected, _ = _posterior_by_grid(alone)
        mean, error = found.gain[t].mean(0), found.gain[t].std(0) / 200**0.5
        assert bool(((mean - expected).abs() < 5.0 * error).all()), t
    assert not _problem("dkf", 1, 2).independent and not _problem("rvae", 1, 2).independent


def test_a_chain_of_a_coupled_model_has_its_two_frame_posterior() -> None:
    """A DKF of one latent and two frames, integrated over the grid of (z_1, z_2)."""
    problem = _problem("dkf", 300, 2, "", "model.z_dim=1")
    torch.manual_seed(3)
    found = mala(problem, InferenceSettings(steps=300, step_size=0.3, burn_in=0.4))
    model: Any = problem.model
    axis = torch.linspace(-7.0, 7.0, 281)[:, None]
    with torch.no_grad():
        first = model.prior(torch.zeros(1, 1)).log_prob(axis)
        steps = torch.stack([model.prior(z[None]).log_prob(axis) for z in axis])
        v = model.decoder(axis).mean
    parameters = problem.observation.parameters  # type: ignore[attr-defined]  # it is a Noise
    signal = v * parameters.g[0, 0, 0]
    x = signal + parameters.variance()[0, 0]
    seen = [-(x.log() + y / x).sum(-1) for y in problem.y[:, 0]]
    log_p = (first + seen[0])[:, None] + steps + seen[1]
    weight = log_p.flatten().softmax(0).view_as(log_p)
    for t in (0, 1):
        expected = (weight.sum(1 - t)[:, None] * signal / x).sum(0)
        mean, error = found.gain[t].mean(0), found.gain[t].std(0) / 300**0.5
        assert bool(((mean - expected).abs() < 5.0 * error).all()), t


@pytest.mark.parametrize("model", ["vae", "rvae"])
def test_a_point_ends_where_the_gradient_is_zero(model: str) -> None:
    """And its objective is log p(y, zeta), the prior's -1/2 |zeta|^2 in it once."""
    problem = _problem(model, 1, frames=2)
    found = point(problem, InferenceSettings(steps=400, lr=0.02))
    guide: Any = found.guide
    zeta = guide.zeta["z"]
    with problem.program():
        scored = traced(poutine.condition(problem.model, data={"z": zeta}), problem.y, problem.lengths)
    seen = problem.observation.distribution.log_prob(problem.y).sum()
    prior = -0.5 * zeta.square().sum() - 2.0 * torch.tensor(2.0 * torch.pi).log()
    torch.testing.assert_close(found.objective[0], (seen + prior).detach())
    density = torch.as_tensor(scored.log_prob_sum())
    (gradient,) = torch.autograd.grad(density, [zeta])
    assert float(gradient.abs().max()) < 2e-3


@pytest.mark.parametrize("name", ["vem", "refine"])
def test_the_bound_rises_and_stays_below_the_evidence(name: str) -> None:
    def bound(steps: int, lr: float, last: int) -> float:
        torch.manual_seed(4)
        settings = InferenceSettings(steps=steps, draws=32, lr=lr)
        found = METHODS[name](_problem("vae", 2), settings)
        return float(torch.stack([terms.elbo for terms in found.trajectory[-last:]]).mean())

    start, end = bound(60, 1e-9, 60), bound(250, {"vem": 3e-3, "refine": 2e-2}[name], 60)
    assert start + 0.03 < end < _evidence_by_grid(_problem("vae", 1))


def _evidence_by_grid(problem: Problem) -> float:
    """log p(y) of a single frame, by summation over a fine grid of z."""
    axis = torch.linspace(-7.0, 7.0, 401)
    z = torch.cartesian_prod(axis, axis)
    v = problem.model.decoder(z).mean.detach()  # type: ignore[operator]  # an attribute of a module
    parameters = problem.observation.parameters  # type: ignore[attr-defined]  # it is a Noise
    x = v * parameters.g[0, 0, 0] + parameters.variance()[0, 0]
    log_p = -(x.log() + problem.y[0, 0] / x).sum(-1) - 0.5 * z.square().sum(-1) - torch.tensor(2.0 * torch.pi).log()
    return float(log_p.logsumexp(0) + 2.0 * (axis[1] - axis[0]).log())


def test_the_yardstick_is_the_evidence() -> None:
    problem = _problem("vae", 2, learns="whg")
    expected = _evidence_by_grid(problem)
    assert evidence(problem, 4000, steps=20).tolist() == pytest.approx([expected] * 2, abs=0.15)
    assert problem.observation.learns == "whg"


@pytest.mark.parametrize("name", list(METHODS))
def test_what_is_learned_raises_the_likelihood(name: str) -> None:
    """With W, H and g learned the objective ends higher than with them fixed, and handlers are left as they were."""
    ends = []
    for learns in ("", "whg"):
        problem = _problem("dkf", 2, 6, learns)
        torch.manual_seed(5)
        found = METHODS[name](problem, InferenceSettings(steps=120, step_size=0.1, burn_in=0.8))
        ends.append(float(torch.stack([terms.elbo for terms in found.trajectory[-20:]]).mean()))
        assert problem.observation.learns == learns
        assert found.gain.shape == problem.y.shape and bool((found.gain > 0).all()) and bool((found.gain <= 1).all())
    assert ends[1] > ends[0] + 0.1


@pytest.mark.parametrize("name", list(METHODS))
def test_padding_changes_nothing(name: str) -> None:
    """A short sequence beside a long one has the gain that it has alone, where no noise is drawn."""
    settings = InferenceSettings(steps=3, latents="mean", step_size=1e-9, burn_in=0.0)
    problem = _problem("dkf", 2, 6, "hg")
    short = problem.y.clone()
    short[4:, 1] = 0.0
    padded = problem._replace(y=short, lengths=torch.tensor([6, 4]))
    alone = _problem("dkf", 1, 4, "hg")
    alone = alone._replace(model=problem.model, guide=problem.guide, y=short[:4, 1:])
    torch.testing.assert_close(
        METHODS[name](padded, settings).gain[:4, 1:], METHODS[name](alone, settings).gain, rtol=1e-5, atol=1e-6
    )


def test_chains_refuse_a_past_that_is_drawn() -> None:
    with pytest.raises(UserError, match=r"inference\.past"):
        mala(_problem("vae", 1), InferenceSettings(past="sampled"))


def test_the_gain_is_averaged_over_fresh_draws() -> None:
    """Of a guide that is not trained: the mean over 1000 draws is that of the guide's Gaussian, by quadrature."""
    problem = _problem("vae", 1)
    torch.manual_seed(6)
    found = refine(problem, InferenceSettings(steps=0, wiener_draws=1000))
    q = traced(problem.guide, problem.y, problem.lengths).nodes["z"]["fn"].base_dist
    mean, deviation = q.loc.flatten(), q.scale.flatten()
    steps = torch.linspace(-5.0, 5.0, 201)
    z = torch.cartesian_prod(steps, steps)
    weight = (-0.5 * z.square().sum(-1)).softmax(0)[:, None]
    v = problem.model.decoder(mean + deviation * z).mean  # type: ignore[operator]  # an attribute of a module
    parameters = problem.observation.parameters  # type: ignore[attr-defined]  # it is a Noise
    signal = v * parameters.g[0, 0, 0]
    expected = (weight * signal / (signal + parameters.variance()[0, 0])).sum(0)
    torch.testing.assert_close(found.gain[0, 0], expected.detach(), atol=0.03, rtol=0.0)
