"""The bound against quadrature, closed forms and finite differences; handlers against what they say they
do.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from dvae_pyro.errors import UserError
from inference.handlers.given_noise import given_noise
from inference.handlers.kl_scale import kl_scale
from inference.objectives.elbo import Objective, terms
from inference.prediction.reconstruction import reconstruct
from models.likelihoods.power_spectrum import itakura_saito
from tests.oracles import gradient_is_that_of_differences
from tests.pairs import LENGTHS, Pair, data, noise, parameters, small_pair, traced

GRID = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)


def _log_joint(pair: Pair, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) of one frame for every z of (P, 1, 1, 1)."""
    trace = traced(poutine.condition(pair.model, {"z": z}), x, torch.tensor([len(x)]))
    trace.compute_log_prob()
    density: Tensor = (trace.nodes["x"]["log_prob"] + trace.nodes["z"]["log_prob"]).sum(-2).squeeze(-1)
    return density


@pytest.mark.parametrize("model_name", ["vae", "dkf"])
def test_the_bound_is_its_integral_and_lies_under_the_likelihood(
    model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One frame, one latent: both sides by quadrature over z. The gap is KL(q, posterior)."""
    monkeypatch.setattr("tests.pairs.LATENT", 1)
    pair = small_pair(model_name)
    x = data()[:1, :1]
    with torch.no_grad():
        log_joint = _log_joint(pair, x, GRID[:, None, None, None])
        q = traced(pair.guide, x, torch.tensor([1])).nodes["z"]["fn"]
        log_q = Normal(q.mean.squeeze(), q.variance.sqrt().squeeze()).log_prob(GRID)
        likelihood = torch.trapezoid(log_joint.exp(), GRID).log()
        bound = torch.trapezoid(log_q.exp() * (log_joint - log_q), GRID)
        posterior_gap = torch.trapezoid(log_q.exp() * (log_q - (log_joint - likelihood)), GRID)
        with pyro.plate("particles", 20_000, dim=-3):
            guide_trace = traced(pair.guide, x, torch.tensor([1]))
            model_trace = traced(poutine.replay(pair.model, guide_trace), x, torch.tensor([1]))
        model_trace.compute_log_prob()
        draws = terms(model_trace, guide_trace).elbo.squeeze()
    torch.testing.assert_close(likelihood - bound, posterior_gap, rtol=1e-6, atol=1e-9)
    assert float(posterior_gap) > 0
    error = 5.0 * float(draws.std()) / len(draws) ** 0.5  # five standard errors; the seed is fixed
    assert float(draws.mean()) == pytest.approx(float(bound), abs=error)


@pytest.mark.parametrize("name", ["elbo", "analytic"])
def test_terms_are_the_closed_forms(name: str) -> None:
    pair = small_pair("dkf")
    x = data()
    noise = torch.randn(len(x), len(LENGTHS), pair.model.z_dim, dtype=torch.float64)
    with given_noise({"z": noise}):
        bound = Objective(pair.model, pair.guide, name)(x, LENGTHS)
        guide_trace = traced(pair.guide, x, LENGTHS)
        model_trace = traced(poutine.replay(pair.model, guide_trace), x, LENGTHS)
    real = (torch.arange(len(x))[:, None] < LENGTHS)[..., None]
    q, p, decoded = guide_trace.nodes["z"]["fn"], model_trace.nodes["z"]["fn"], model_trace.nodes["x"]["fn"]
    ratio = q.variance / p.variance
    kl = 0.5 * (ratio + (q.mean - p.mean).square() / p.variance - 1.0 - ratio.log())
    torch.testing.assert_close(bound.terms.kl["z"], (kl * real).sum((0, 2)))
    safe = torch.where(real, x, 1.0)
    density = -itakura_saito(safe, decoded.mean) - safe.log() - 1.0
    torch.testing.assert_close(bound.terms.reconstruction, (density * real).sum((0, 2)))
    torch.testing.assert_close(bound.terms.elbo, bound.terms.reconstruction - bound.terms.kl["z"])
    assert not bound.terms.elbo.requires_grad
    z = guide_trace.nodes["z"]["value"]
    sampled = (
        (Normal(q.mean, q.variance.sqrt()).log_prob(z) - Normal(p.mean, p.variance.sqrt()).log_prob(z)) * real
    ).sum()
    cost = kl.mul(real).sum() if name == "analytic" else sampled
    torch.testing.assert_close(bound.loss, cost - bound.terms.reconstruction.sum())


@pytest.mark.parametrize("name", ["elbo", "analytic"])
@pytest.mark.parametrize("how", ["auto", "stepwise"])
def test_kl_scale_weights_the_loss_and_not_the_bound(name: str, how: str) -> None:
    pair = small_pair("dkf")
    objective = Objective(pair.model, pair.guide, name)
    noise = {"z": torch.randn(len(data()), len(LENGTHS), pair.model.z_dim, dtype=torch.float64)}
    with given_noise(noise):
        plain, off, half = (objective(data(), LENGTHS, beta=beta, how=how) for beta in (1.0, 0.0, 0.5))
        with kl_scale(0.5, sites=["z"]), kl_scale(7.0, sites=["w"]):
            composed = objective(data(), LENGTHS, beta=0.5, how=how)
    cost = plain.loss - off.loss
    torch.testing.assert_close(off.loss, -plain.terms.reconstruction.sum())
    torch.testing.assert_close(half.loss, off.loss + 0.5 * cost)
    torch.testing.assert_close(composed.loss, off.loss + 0.25 * cost)
    for bound in (off, half, composed):
        assert torch.equal(bound.terms.elbo, plain.terms.elbo)
    with pytest.raises(ValueError, match=r"beta = -1\.0"):
        kl_scale(-1.0)


@pytest.mark.parametrize("how", ["auto", "stepwise"])
def test_a_latent_may_have_a_weight_of_its_own(how: str) -> None:
    """DSAE's two KLs, each taken from the difference that its weight makes, in closed form."""
    pair = small_pair("dsae")
    objective = Objective(pair.model, pair.guide, "analytic")
    with given_noise(noise(pair)):
        plain = objective(data(), LENGTHS, beta=1.0, how=how)
        weighted = objective(data(), LENGTHS, beta=0.25, beta_sites={"v": 3.0}, how=how)
    kl = {name: value.sum() for name, value in plain.terms.kl.items()}
    torch.testing.assert_close(weighted.loss, -plain.terms.reconstruction.sum() + 0.25 * kl["z"] + 3.0 * kl["v"])
    assert torch.equal(weighted.terms.elbo, plain.terms.elbo)
    with pytest.raises(ValueError, match=r"beta = -1\.0"):
        kl_scale(1.0, own={"v": -1.0})


@pytest.mark.parametrize("name", ["elbo", "analytic"])
def test_gradients_against_finite_differences(name: str) -> None:
    """Along random directions through all parameters at once, with the noise held."""
    pair = small_pair("dkf")
    objective = Objective(pair.model, pair.guide, name)
    noise = {"z": torch.randn(len(data()), len(LENGTHS), pair.model.z_dim, dtype=torch.float64)}
    named = parameters(pair)

    def loss() -> Tensor:
        with given_noise(noise):
            value: Tensor = objective(data(), LENGTHS, beta=0.3).loss
        return value

    gradient_is_that_of_differences(loss, [*named.values()], step=1e-6, directions=3)


def test_the_loss_is_unbiased_for_minus_the_bound() -> None:
    pair = small_pair("vae")
    objective = Objective(pair.model, pair.guide)
    with torch.no_grad():
        draws = torch.stack([objective(data(), LENGTHS).loss for _ in range(400)])
        reference = torch.stack([objective(data(), LENGTHS).terms.elbo.sum() for _ in range(400)])
    error = 5.0 * float((draws.var() + reference.var()).sqrt()) / 400**0.5
    assert float(draws.mean()) == pytest.approx(-float(reference.mean()), abs=error)


class Misses(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto") -> None:
        pyro.sample("w", dist.Normal(torch.zeros(1), 1.0).to_event(1))


@pytest.mark.filterwarnings("ignore:Found")  # Pyro's own hint; ours is an error
def test_a_guide_that_misses_a_latent_is_an_error() -> None:
    pair = small_pair("vae")
    with pytest.raises(ValueError, match=r"\['z'\].*\['w'\]"):
        Objective(pair.model, Misses())(data(), LENGTHS)
    with pytest.raises(UserError, match="'elbow'.*'elbo'"):
        Objective(pair.model, pair.guide, "elbow")


def test_reconstruction_runs_the_model_on_the_means_of_its_latents() -> None:
    pair = small_pair("dkf")
    found = reconstruct(pair.model, pair.guide, data(), LENGTHS)
    again = reconstruct(pair.model, pair.guide, data(), LENGTHS, mode="gen")  # a DKF looks back at no x
    assert torch.equal(found.mean, again.mean) and found.mean.shape == data().shape
    decoder: Any = pair.model.decoder
    torch.testing.assert_close(found.mean, decoder(found.latents["z"]).mean)
    sampled = reconstruct(pair.model, pair.guide, data(), LENGTHS, latents="sample")
    assert not torch.allclose(sampled.latents["z"], found.latents["z"])
    with pytest.raises(ValueError, match="latents='median'"):
        reconstruct(pair.model, pair.guide, data(), LENGTHS, latents="median")
