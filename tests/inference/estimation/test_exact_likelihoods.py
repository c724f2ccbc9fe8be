"""Estimates held to likelihoods that are known: of a linear-Gaussian state-space model, and by integration on a grid.

A statistical test allows 5 standard errors, which chance exceeds once in a million times; seeds are fixed.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn

from guides.core.guide import Guide
from guides.registry import build_guide, guide_class
from inference.estimation.importance import density, log_mean_exp, log_weights
from inference.particles.particle_filter import smc
from inference.particles.resampling import SCHEMES
from models.dkf import DKF, DKFSettings
from models.dvae import DVAE
from models.registry import build_model, model_class
from tests.pairs import PAIRS, SMALL_GUIDES, VARIANTS
from tests.support.guides import guide_of

SIGMA = 5.0
TRANSITION = torch.tensor([[0.6, -0.2], [0.1, 0.5]], dtype=torch.float64)
NOISE = torch.tensor([0.6, 0.5], dtype=torch.float64)
DECODER = torch.tensor([[1.0, 0.3], [-0.4, 0.8], [0.5, 0.5]], dtype=torch.float64)
OFFSET = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
SCALE = torch.tensor([2.0, 1.6, 2.4], dtype=torch.float64)


class LinearTransition(nn.Module):
    """N(A z, diag(noise^2))."""

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Independent(dist.Normal(z @ TRANSITION.t(), NOISE), 1)


def linear_dkf() -> DKF:
    """A DKF whose networks are linear: z_t = A z_{t-1} + noise, x_t = C z_t + c + noise."""
    settings = DKFSettings(z_dim=2, bins=3, z_x=[], likelihood="gaussian", input="raw", variance_floor=0.0)
    model = DKF(settings).double()
    model.transition = LinearTransition()  # type: ignore[assignment]  # attributes of a Module, settings by structure
    affine = model.likelihood.affine
    assert isinstance(affine, nn.Linear)
    with torch.no_grad():
        affine.weight.copy_(torch.cat([DECODER, torch.zeros_like(DECODER)]))
        affine.bias.copy_(torch.cat([OFFSET, 2.0 * SCALE.log()]))
    return model


def exact(x: Tensor) -> Tensor:
    """log p(x) of sequences (T, N, D) of the linear model, by Pyro's parallel Kalman filter."""
    nothing = dist.MultivariateNormal(torch.zeros(2).double(), covariance_matrix=1e-10 * torch.eye(2).double())
    process = dist.MultivariateNormal(torch.zeros(2).double(), covariance_matrix=NOISE.square().diag())
    sensor = dist.MultivariateNormal(OFFSET, covariance_matrix=SCALE.square().diag())
    hmm = dist.GaussianHMM(nothing, TRANSITION.t(), process, DECODER.t(), sensor, duration=len(x))
    found: Tensor = hmm.log_prob(x.movedim(0, 1))
    return found


def simulated(frames: int) -> Tensor:
    """One sequence (T, 1, D) of the linear model."""
    generator = torch.Generator().manual_seed(frames)
    z, x = torch.zeros(2).double(), []
    for _ in range(frames):
        z = TRANSITION @ z + NOISE * torch.randn(2, generator=generator, dtype=torch.float64)
        x.append(DECODER @ z + OFFSET + SCALE * torch.randn(3, generator=generator, dtype=torch.float64))
    return torch.stack(x)[:, None]


class Repeats(NamedTuple):
    """Independent estimates of one sequence's log p(x), (R,)."""

    iwae: Tensor
    smc: Tensor


def repeated(
    model: DVAE, guide: Guide, x: Tensor, particles: int, repeats: int, *, scheme: str = "systematic"
) -> Repeats:
    """Estimates of x (T, 1, D), computed side by side as so many sequences."""
    many, lengths = x.expand(-1, repeats, -1), torch.full((repeats,), len(x))
    torch.manual_seed(0)
    with torch.no_grad():
        weights = log_mean_exp(log_weights(model, guide, many, lengths, particles))
        if not model.stepwise:
            return Repeats(weights, weights)
        return Repeats(weights, smc(model, guide, many, lengths, particles, threshold=0.9, scheme=scheme).log_evidence)


def assert_unbiased(estimates: Tensor, truth: Tensor, within: float) -> None:
    """Mean of exp(estimate - truth) is 1 within `SIGMA` standard errors, one of which is at most `within`."""
    ratios = (estimates - truth).exp()
    error = float(ratios.std() / len(ratios) ** 0.5)
    assert error < within
    assert abs(float(ratios.mean()) - 1.0) < SIGMA * error


@pytest.mark.parametrize("guide_name", [guide for variant, guide in PAIRS if variant == "dkf"])
def test_every_guide_converges_to_the_kalman_filter(guide_name: str) -> None:
    model = linear_dkf()
    guide = guide_of(model, DKFSettings(), guide_name, x_g=[6], g_dim=5, z_g=[4], g_z=[5])
    x = simulated(4)
    truth = exact(x)[0]
    weights, filtered = repeated(model, guide, x, particles=100, repeats=300)
    assert_unbiased(weights, truth, within=0.08)
    assert_unbiased(filtered, truth, within=0.03)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_few_particles_are_unbiased_whatever_the_scheme(scheme: str) -> None:
    model = linear_dkf()
    guide = guide_of(model, DKFSettings(), "past-markov")
    x = simulated(4)
    assert_unbiased(repeated(model, guide, x, particles=4, repeats=600, scheme=scheme).smc, exact(x)[0], within=0.1)


def test_bounds_rise_with_the_number_of_particles() -> None:
    """In expectation, towards log p(x) (Burda et al., 2016, theorem 1)."""
    model = linear_dkf()
    guide = guide_of(model, DKFSettings(), "past-markov")
    x = simulated(4)
    below = (-1e9, -1e9)
    for particles in (1, 4, 16):
        found = repeated(model, guide, x, particles, repeats=600)
        means = float(found.iwae.mean()), float(found.smc.mean())
        for estimates, mean, lower in zip(found, means, below, strict=True):
            error = float(estimates.std() / 600**0.5)
            assert lower + SIGMA * error < mean < float(exact(x)[0]) + SIGMA * error
        below = means


def test_importance_weights_degenerate_with_length_and_the_filter_does_not() -> None:
    """The mean logarithm lies below log p(x): per frame, ever further for importance weights, and no further for the
    filter, whose distance is half its variance (within 5 standard errors and a fifth).
    """
    model = linear_dkf()
    guide = guide_of(model, DKFSettings(), "future-markov")
    per_frame = {}
    for frames in (10, 60):
        x = simulated(frames)
        found = repeated(model, guide, x, particles=60, repeats=100)
        gaps = [float(exact(x)[0] - estimates.mean()) for estimates in found]
        variance = float(found.smc.var())
        assert gaps[1] == pytest.approx(variance / 2, rel=0.2, abs=SIGMA * (variance / 100) ** 0.5)
        per_frame[frames] = [gap / frames for gap in gaps]
    assert per_frame[60][0] > 2.0 * per_frame[10][0] > 0.0
    assert per_frame[60][1] < 0.2 * per_frame[60][0]


def test_smoothed_latents_are_those_of_the_kalman_smoother() -> None:
    """Mean and covariance of z_{1:T} given x, from the joint Gaussian of both."""
    frames, particles = 5, 20000
    x = simulated(frames)
    path = torch.eye(2 * frames).double() - torch.block_diag(*[torch.zeros(2, 2)] * frames).double()
    for t in range(1, frames):
        path[2 * t : 2 * t + 2, 2 * t - 2 : 2 * t] = -TRANSITION
    back = torch.linalg.inv(path)
    prior = back @ NOISE.square().repeat(frames).diag() @ back.t()
    decode = torch.block_diag(*[DECODER] * frames)
    gain = prior @ decode.t() @ torch.linalg.inv(decode @ prior @ decode.t() + SCALE.square().repeat(frames).diag())
    mean = gain @ (x[:, 0] - OFFSET).flatten()
    covariance = prior - gain @ decode @ prior

    model = linear_dkf()
    torch.manual_seed(0)
    guide = guide_of(model, DKFSettings(), "future-markov")
    with torch.no_grad():
        found = smc(model, guide, x, torch.tensor([frames]), particles, scheme="stratified")
    drawn = found.smoothed(particles)["z"][:, :, 0].flatten(1)
    distinct = len(drawn[:, 0].unique())  # what is left of the particles of the first frame
    assert distinct > 1000
    error = (covariance.diagonal() / distinct).sqrt()
    assert bool(((drawn.mean(0) - mean).abs() < SIGMA * error).all())
    assert bool(
        ((drawn.t().cov() - covariance).abs() < SIGMA * covariance.diagonal().max() * (2.0 / distinct) ** 0.5).all()
    )


WIDTHS = ("initial_variance", "transition_variance", "emission_variance")


# FHVAE's guide has a point for mu2, and so estimates log p(x, mu2), not log p(x); layers of ladders are wider than one.
# RNN has nothing to integrate.
@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.startswith(("fhvae", "ms_stcn", "stcn", "rnn"))])
def test_every_model_has_the_likelihood_that_a_grid_gives(variant: str) -> None:
    """One-dimensional latents over two frames, integrated by the trapezoidal rule; nothing is linear."""
    name, more = VARIANTS[variant]
    cls = model_class(name)
    torch.manual_seed(1)
    one = {f"{latent}_dim": 1 for latent in ("z", *cls.latents) if hasattr(cls.Settings, f"{latent}_dim")}
    wide = {f.name: 1.0 for f in fields(cls.Settings) if f.name in WIDTHS}  # as wide as the grid can tell
    settings: Any = cls.Settings(name=name, bins=3, **{**more, **one, **wide})
    model = build_model(settings).double()
    guide = build_guide(model, settings, guide_class(settings, "paper").Settings(**SMALL_GUIDES.get(name, {}))).double()
    x = torch.empty(2, 1, 3, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(4))
    model.fit_input([x[:, 0]])

    sites = {latent: 2 if latent in ("z", "a") else 1 for latent in model.latents}  # and how many frames each has
    points = torch.linspace(-6.0, 6.0, 21, dtype=torch.float64)
    grid = torch.cartesian_prod(*[points] * sum(sites.values())).reshape(-1, sum(sites.values()), 1, 1)
    values = dict(zip(sites, grid.split([*sites.values()], dim=1), strict=True))
    with torch.no_grad(), pyro.plate("particles", len(grid), dim=-3), poutine.condition(data=values):
        trace = poutine.trace(model).get_trace(x, torch.tensor([2]))
    trace.compute_log_prob()
    truth = density(trace)[:, 0].logsumexp(0) + sum(sites.values()) * (points[1] - points[0]).log()

    for found in repeated(model, guide, x, particles=20, repeats=250):
        assert_unbiased(found, truth, within=0.08)
