"""Bounds of several draws: against the Kalman filter, against each other draw by draw, and in expectation."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from dvae_pyro.errors import UserError
from guides.dkf import DKFGuide, DKFGuideSettings
from guides.registry import build_guide, guide_class
from inference.handlers.given_noise import given_noise
from inference.handlers.kl_scale import kl_scale
from inference.objectives.elbo import Bound, Objective
from inference.objectives.multisample import filtered, importance_weighted
from inference.particles.log_weights import log_mean_exp
from models.core.effects import base_name
from models.core.tensors import normal
from models.dkf import DKF, DKFSettings
from models.registry import build_model, model_class
from tests.oracles import gradient_is_that_of_differences
from tests.pairs import LENGTHS, VARIANTS, Pair, data, noise, parameters, small_pair, traced

MULTISAMPLE = ["iwae", "dreg", "fivo"]
IMPORTANCE_WEIGHTED = ["iwae", "dreg"]
Gradients = dict[str, Tensor]


def particles_of(pair: Pair, particles: int, seed: int = 6) -> dict[str, Tensor]:
    """Standard normal numbers for every latent of a batch of `data`, and every particle."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (v.shape if v.dim() > 2 else (1, *v.shape)) for name, v in noise(pair).items()}
    return {n: torch.randn((particles, *s), generator=generator, dtype=torch.float64) for n, s in shapes.items()}


def only(noise_of_all: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """The noise of one particle, as without particles."""
    return {name: v[k] if v.shape[1] > 1 else v[k, 0] for name, v in noise_of_all.items()}


def computed(pair: Pair, name: str, particles: int, draws: dict[str, Tensor], **how: Any) -> tuple[Bound, Gradients]:
    """The bound of a batch, and the gradient of its loss by parameter."""
    named = parameters(pair)
    with given_noise(draws):
        bound = Objective(pair.model, pair.guide, name, particles)(data(), LENGTHS, **how)
    gradients = torch.autograd.grad(bound.loss, list(named.values()))
    return bound, dict(zip(named, gradients, strict=True))


def log_weights_one_by_one(pair: Pair, draws: dict[str, Tensor], particles: int) -> Tensor:
    """log p(x, z) - log q(z | x) of each particle and sequence, (K, N), each from a batch of one, by the ELBO."""
    objective, rows = Objective(pair.model, pair.guide), []
    for k in range(particles):
        alone = only(draws, k)
        row = []
        for n, length in enumerate(LENGTHS.tolist()):
            own = {name: v[:length, n : n + 1] if v.dim() > 2 else v[n : n + 1] for name, v in alone.items()}
            with given_noise(own):
                row.append(-objective(data()[:length, n : n + 1], LENGTHS[n : n + 1]).loss)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("variant", ["dkf", "vrnn", "dsae", "rvae-noncausal"])
def test_a_ragged_batch_is_the_bound_of_its_sequences_one_by_one(variant: str) -> None:
    """Value and gradient of the plain bound, from ELBOs of single draws of single sequences."""
    pair = small_pair(variant)
    draws = particles_of(pair, 3)
    bound, gradients = computed(pair, "iwae", 3, draws)
    expected = log_mean_exp(log_weights_one_by_one(pair, draws, 3))
    assert bound.multi_sample is not None
    torch.testing.assert_close(bound.multi_sample, expected.detach(), rtol=1e-10, atol=1e-10)
    named = parameters(pair)
    for name, gradient in zip(named, torch.autograd.grad(-expected.sum(), list(named.values())), strict=True):
        assert torch.allclose(gradients[name], gradient, rtol=1e-8, atol=1e-9), name
    singles = [computed(pair, "elbo", 1, only(draws, k))[0].terms for k in range(3)]
    torch.testing.assert_close(bound.terms.elbo, torch.stack([one.elbo for one in singles]).mean(0))


@pytest.mark.parametrize("name", ["elbo", "analytic"])
def test_the_elbo_of_several_draws_is_their_mean(name: str) -> None:
    pair = small_pair("dsae")
    draws = particles_of(pair, 3)
    bound, gradients = computed(pair, name, 3, draws, beta=0.5, beta_sites={"v": 2.0})
    singles = [computed(pair, name, 1, only(draws, k), beta=0.5, beta_sites={"v": 2.0}) for k in range(3)]
    torch.testing.assert_close(bound.loss, sum(one.loss for one, _ in singles) / 3)
    assert bound.multi_sample is None
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(g[parameter] for _, g in singles) / 3, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("how", ["auto", "looped", "stepwise"])
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_one_draw_is_the_elbo(how: str, beta: float) -> None:
    pair = small_pair("vrnn")
    plain, expected = computed(pair, "elbo", 1, noise(pair), beta=beta, how=how)
    bound, gradients = computed(pair, "iwae", 1, noise(pair), beta=beta, how=how)
    torch.testing.assert_close(bound.loss, plain.loss, rtol=1e-12, atol=0)
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("how", ["auto", "stepwise"])
def test_interpreters_give_the_doubly_reparametrised_gradient_alike(how: str) -> None:
    pair = small_pair("dkf")
    draws = particles_of(pair, 3)
    expected, gradients = computed(pair, "dreg", 3, draws, beta=0.6, how="looped")
    bound, found = computed(pair, "dreg", 3, draws, beta=0.6, how=how)
    torch.testing.assert_close(bound.loss, expected.loss, rtol=1e-11, atol=0)
    for name in gradients:
        torch.testing.assert_close(found[name], gradients[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("variant", ["dkf", "rvae", "dsae"])
def test_generative_parameters_get_the_plain_gradient_with_the_same_noise(variant: str, beta: float) -> None:
    """Their guides share nothing with the model, so all of the model's parameters are generative alone."""
    pair = small_pair(variant)
    draws = particles_of(pair, 4)
    plain, expected = computed(pair, "iwae", 4, draws, beta=beta)
    bound, gradients = computed(pair, "dreg", 4, draws, beta=beta)
    torch.testing.assert_close(bound.loss, plain.loss, rtol=1e-11, atol=0)
    assert bound.multi_sample is not None and plain.multi_sample is not None
    torch.testing.assert_close(bound.multi_sample, plain.multi_sample)
    for name in gradients:
        same = torch.allclose(gradients[name], expected[name], rtol=1e-7, atol=1e-9)
        assert same == name.startswith("model."), name


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("variant", ["dkf", "rvae", "vrnn", "srnn", "dsae"])
def test_the_doubly_reparametrised_gradient_is_its_formula(variant: str, beta: float) -> None:
    """By copies of all parameters: one draws, frame by frame; one scores the draws, its guide's held. VRNN's and SRNN's
    guides share parameters with the model.
    """
    pair, particles = small_pair(variant), 3
    draws = particles_of(pair, particles)
    _, found = computed(pair, "dreg", particles, draws, beta=beta)
    drawing: Pair = copy.deepcopy(pair)
    with pyro.plate("particles", particles, dim=-3), given_noise(draws):
        drawn = traced(drawing.guide, data(), LENGTHS, "stepwise")
    z = {name: site["value"] for name, site in drawn.nodes.items() if base_name(name) in pair.model.latents}
    held = {name: v.detach() for name, v in z.items()}

    def log_density(program: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        with pyro.plate("particles", particles, dim=-3):
            trace = traced(poutine.condition(program, values), data(), LENGTHS, "stepwise")
        trace.compute_log_prob()
        sites = {name: site for name, site in trace.nodes.items() if base_name(name) in ("x", *pair.model.latents)}
        total: dict[str, Tensor] = {"x": torch.zeros(()), "z": torch.zeros(())}
        for name, site in sites.items():
            kind = "x" if base_name(name) == "x" else "z"
            total[kind] = total[kind] + site["log_prob"].sum(-2)
        return total

    p, q = log_density(pair.model, z), log_density(pair.guide, z)
    log_weight = p["x"] + beta * (p["z"] - q["z"])
    weight = torch.softmax(log_weight.detach(), 0)
    through_draws = (((1 - beta) * weight + beta * weight.square()) * log_weight).sum()
    p = log_density(pair.model, held)
    through_model = (weight * (p["x"] + beta * p["z"])).sum()
    named = parameters(pair)
    copies = dict(zip(named, parameters(drawing).values(), strict=True))
    of_draws = torch.autograd.grad(through_draws, list(copies.values()), allow_unused=True)
    of_model = torch.autograd.grad(through_model, list(named.values()), allow_unused=True)
    for name, first, second in zip(named, of_draws, of_model, strict=True):
        parts = [part for part in (first, second) if part is not None]
        assert torch.allclose(found[name], -torch.stack(parts).sum(0), rtol=1e-6, atol=1e-7), name


TINY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dkf": ({"z_x": [4]}, {"x_g": [4], "g_dim": 4, "z_g": [4], "g_z": [4]}),
    "vrnn": ({"x": [4], "z": [3], "h_dim": 4, "h_z": [3], "hz_x": [4]}, {"xh_z": [4]}),
    "rvae": ({"z_h": [3], "h_dim": 4, "h_x": [4]}, {"x_g": [4], "g_dim": 4, "z_k": [3], "k_dim": 3, "g_z": [4]}),
}
"""Settings of model and guide so small that thousands of gradients take a second."""


def tiny_pair(variant: str) -> Pair:
    torch.manual_seed(3)
    ours, theirs = TINY[variant]
    settings = model_class(variant).Settings(name=variant, bins=2, z_dim=2, **ours)
    guide_settings = guide_class(settings, "paper").Settings(**theirs)
    model = build_model(settings).double()
    return Pair(model, build_guide(model, settings, guide_settings).double(), settings, guide_settings)


@pytest.mark.parametrize(("variant", "beta"), [("dkf", 1.0), ("dkf", 0.3), ("vrnn", 1.0), ("rvae", 0.3)])
def test_both_gradients_are_the_same_in_expectation(variant: str, beta: float) -> None:
    """Means of 20 blocks of independent copies of one sequence; five standard errors of their difference, in 12 random
    directions through all parameters, of which a wrong formula would fail most.
    """
    pair = tiny_pair(variant)
    named = parameters(pair)
    copies, frames = 700, 3
    x = (torch.linspace(0.1, 3.0, frames * 2, dtype=torch.float64).reshape(frames, 1, 2)).expand(-1, copies, -1)
    directions = [[torch.randn_like(p) for p in named.values()] for _ in range(12)]
    means, errors = [], []
    for name in IMPORTANCE_WEIGHTED:
        objective, blocks = Objective(pair.model, pair.guide, name, 3), []
        for _ in range(20):
            loss = objective(x, torch.full((copies,), frames), beta=beta).loss / copies
            gradients = torch.autograd.grad(loss, list(named.values()))
            blocks.append([sum((g * d).sum() for g, d in zip(gradients, ds, strict=True)) for ds in directions])
        values = torch.tensor(blocks, dtype=torch.float64)
        means.append(values.mean(0))
        errors.append(values.var(0) / len(values))
    apart = (means[0] - means[1]).abs() / (errors[0] + errors[1]).sqrt()
    assert float(apart.max()) < 5.0


class LinearTransition(nn.Module):
    """N(A z, Q) with a diagonal Q."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(0.5 * torch.randn(dim, dim, dtype=torch.float64))
        self.log_variance = nn.Parameter(0.3 * torch.randn(dim, dtype=torch.float64))

    def forward(self, z: Tensor) -> Any:
        return normal(z @ self.matrix.t(), self.log_variance.expand_as(z))


def linear_pair() -> Pair:
    """A DKF that is a linear-Gaussian state-space model, with the DKF's guide."""
    torch.manual_seed(7)
    settings = DKFSettings(bins=2, z_dim=2, z_x=[], likelihood="gaussian", input="raw", variance_floor=0.0)
    guide_settings = DKFGuideSettings(**TINY["dkf"][1])
    model = DKF(settings).double()
    model.transition = LinearTransition(2)  # type: ignore[assignment]  # another module in its place
    head: Any = model.likelihood
    with torch.no_grad():
        head.affine.weight[2:] = 0.0  # the variance is the same for every z
    guide = DKFGuide(model, guide_settings).double()
    with torch.no_grad():
        guide.head.affine.bias[2:] = 0.5  # wider than the posterior, for weights that are not too uneven
    return Pair(model, guide, settings, guide_settings)


def exact(pair: Pair, x: Tensor) -> Tensor:
    """log p(x) of one sequence (T, D), from the joint Gaussian of all frames."""
    model: Any = pair.model
    matrix, q, affine = model.transition.matrix, model.transition.log_variance.exp(), model.likelihood.affine
    c, bias, r = affine.weight[:2], affine.bias[:2], affine.bias[2:].exp()
    frames = len(x)
    powers = [torch.eye(2, dtype=torch.float64)]
    for _ in range(frames - 1):
        powers.append(matrix @ powers[-1])
    zero = torch.zeros(2, 2, dtype=torch.float64)
    unrolled = torch.cat(
        [torch.cat([c @ powers[t - s] if s <= t else zero for s in range(frames)], 1) for t in range(frames)]
    )
    covariance = unrolled @ torch.diag(q.repeat(frames)) @ unrolled.t() + torch.diag(r.repeat(frames))
    density: Tensor = MultivariateNormal(bias.repeat(frames), covariance).log_prob(x.reshape(-1))
    return density


@pytest.mark.parametrize("name", IMPORTANCE_WEIGHTED)
def test_many_draws_give_the_gradient_of_the_exact_likelihood(name: str) -> None:
    """Value and gradient of the linear-Gaussian model's parameters, K = 500; six standard errors over blocks."""
    pair = linear_pair()
    x = torch.tensor([[0.4, -1.0], [1.5, 0.2], [-0.3, 0.8]], dtype=torch.float64)
    named = {n: p for n, p in pair.model.named_parameters()}
    likelihood = exact(pair, x)
    expected = torch.autograd.grad(likelihood, list(named.values()))
    objective = Objective(pair.model, pair.guide, name, 500)
    values, gradients = [], []
    for _ in range(12):
        bound = objective(x[:, None].expand(-1, 40, -1), torch.full((40,), 3))
        values.append(-bound.loss.detach() / 40)
        gradients.append([-g / 40 for g in torch.autograd.grad(bound.loss, list(named.values()))])
    found = torch.stack(values)
    bias = 0.01  # of order 1 / K
    assert float(found.mean()) == pytest.approx(float(likelihood.detach()), abs=6 * float(found.std()) / 12**0.5 + bias)
    for place, (parameter, target) in enumerate(zip(named, expected, strict=True)):
        blocks = torch.stack([g[place] for g in gradients])
        error = 6 * blocks.std(0) / 12**0.5 + bias
        if parameter == "likelihood.affine.weight":
            blocks, target, error = blocks[:, :2], target[:2], error[:2]  # the exact one knows no weights of variances
        assert bool(((blocks.mean(0) - target).abs() <= error).all()), parameter


def test_bounds_rise_with_the_number_of_draws_to_the_exact_likelihood() -> None:
    """In expectation: 2000 copies, differences of five standard errors and more."""
    pair = linear_pair()
    x = torch.tensor([[0.4, -1.0], [1.5, 0.2], [-0.3, 0.8]], dtype=torch.float64)[:, None].expand(-1, 2000, -1)
    with torch.no_grad():
        bounds = {
            k: Objective(pair.model, pair.guide, "iwae", k)(x, torch.full((2000,), 3)).multi_sample
            for k in (1, 4, 16, 64)
        }
        elbo = Objective(pair.model, pair.guide, "iwae", 4)(x, torch.full((2000,), 3)).terms.elbo
        likelihood = float(exact(pair, x[:, 0]))
    means = {k: float(v.mean()) for k, v in bounds.items() if v is not None}
    errors = {k: float(v.std()) / 2000**0.5 for k, v in bounds.items() if v is not None}
    for few, many in ((1, 4), (4, 16), (16, 64)):
        assert means[many] - means[few] > 5 * (errors[few] ** 2 + errors[many] ** 2) ** 0.5
    assert means[1] == pytest.approx(float(elbo.mean()), abs=5 * errors[1])
    assert means[64] < likelihood + 5 * errors[64]
    assert likelihood - means[64] < 0.25 * (likelihood - means[1])


@pytest.mark.parametrize("name", MULTISAMPLE)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_parameter_gets_a_finite_gradient(variant: str, name: str) -> None:
    pair = small_pair(variant)
    if not pair.model.latents:
        with pytest.raises(UserError, match="RNN.*train.objective=elbo"):
            Objective(pair.model, pair.guide, name, 3)
        return
    if name == "fivo" and not pair.model.stepwise:
        with pytest.raises(UserError, match="train.objective=fivo"):
            Objective(pair.model, pair.guide, name, 3)
        return
    _, gradients = computed(pair, name, 3, {})
    assert [n for n, g in gradients.items() if not bool(torch.isfinite(g).all() and g.abs().max() > 0)] == []


@pytest.mark.parametrize("name", IMPORTANCE_WEIGHTED)
def test_what_handlers_scale_is_the_objective_and_not_the_bound(name: str) -> None:
    """The log-weights log p(x | z) + beta (log p(z) - log q(z | x)), from ELBOs of beta 1 and 0."""
    pair = small_pair("dkf")
    draws = particles_of(pair, 3)
    whole, nothing = (torch.stack([one_bound(pair, only(draws, k), beta) for k in range(3)]) for beta in (1.0, 0.0))
    with given_noise(draws), kl_scale(0.5):
        bound = Objective(pair.model, pair.guide, name, 3)(data(), LENGTHS, beta=0.5)
    expected = log_mean_exp(nothing + 0.25 * (whole - nothing))
    torch.testing.assert_close(-bound.loss, expected.sum())
    torch.testing.assert_close(bound.multi_sample, log_mean_exp(whole))


def one_bound(pair: Pair, draws: dict[str, Tensor], beta: float) -> Tensor:
    """The log-weight of one draw of each sequence, (N,), by the ELBO of batches of one."""
    rows = []
    for n, length in enumerate(LENGTHS.tolist()):
        with given_noise({name: v[:length, n : n + 1] for name, v in draws.items()}):
            rows.append(-Objective(pair.model, pair.guide)(data()[:length, n : n + 1], LENGTHS[n : n + 1], beta).loss)
    return torch.stack(rows).detach()


@pytest.mark.parametrize("variant", ["dkf", "vrnn", "dsae"])
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_a_filter_that_never_resamples_is_the_importance_weighted_bound(variant: str, beta: float) -> None:
    """Value and gradient with the same noise."""
    pair = small_pair(variant)
    named, found = parameters(pair), []
    for objective in (partial(filtered, threshold=0.0), importance_weighted):
        with given_noise(particles_of(pair, 4)), kl_scale(beta):
            result = objective(pair.model, pair.guide, (data(), LENGTHS, "auto"), 4)
        found.append((result, torch.autograd.grad(result.objective.sum(), list(named.values()))))
    (one, of_one), (other, of_other) = found
    torch.testing.assert_close(one.objective, other.objective, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(one.bound, other.bound, rtol=1e-10, atol=1e-10)
    for name, a, b in zip(named, of_one, of_other, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-8), name


@pytest.mark.parametrize("variant", ["dkf", "vrnn", "dsae"])
def test_gradients_of_the_filtering_bound_against_finite_differences(variant: str) -> None:
    """With the random numbers held, and so the ancestors, along random directions through all parameters."""
    pair = small_pair(variant)
    named = parameters(pair)

    def loss() -> Tensor:
        torch.manual_seed(8)
        value: Tensor = Objective(pair.model, pair.guide, "fivo", 4)(data(), LENGTHS, beta=0.7).loss
        return value

    gradient_is_that_of_differences(loss, [*named.values()], step=1e-7, directions=2)


def test_the_filtering_bound_lies_between_the_elbo_and_the_exact_likelihood() -> None:
    """Of a linear-Gaussian model: 600 copies of a sequence of 12 frames, where importance weights have degenerated."""
    pair = linear_pair()
    torch.manual_seed(2)
    x = torch.randn(12, 1, 2, dtype=torch.float64).expand(-1, 600, -1)
    with torch.no_grad():
        found = {
            name: Objective(pair.model, pair.guide, name, 8)(x, torch.full((600,), 12)) for name in ("iwae", "fivo")
        }
        scaled = Objective(pair.model, pair.guide, "fivo", 8)(x, torch.full((600,), 12), beta=0.2)
        likelihood = float(exact(pair, x[:, 0]))
    means = {name: float(bound.multi_sample.mean()) for name, bound in found.items()}
    errors = {name: float(bound.multi_sample.std()) / 600**0.5 for name, bound in found.items()}
    elbo = float(found["fivo"].terms.elbo.mean())
    assert elbo == pytest.approx(float(found["iwae"].terms.elbo.mean()), abs=5 * errors["iwae"])
    assert elbo + 5 * errors["iwae"] < means["iwae"] < means["fivo"] - 5 * errors["fivo"] - 5 * errors["iwae"]
    assert means["fivo"] < likelihood + 5 * errors["fivo"]
    assert -float(scaled.loss) / 600 > means["fivo"] + 5 * errors["fivo"]  # less of the KL is counted
    assert float(scaled.multi_sample.mean()) == pytest.approx(means["fivo"], rel=0.3)


def test_a_filter_has_no_other_interpreter() -> None:
    pair = small_pair("dkf")
    with pytest.raises(ValueError, match="how='.*expected 'auto'"):
        Objective(pair.model, pair.guide, "fivo", 3)(data(), LENGTHS, how="stepwise")


class Discrete(nn.Module):
    """A program with one latent that is not reparametrised."""

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto") -> None:
        with pyro.plate("sequences", len(lengths), dim=-1):
            pyro.sample("s", dist.Bernoulli(torch.full((3, 1, len(lengths), 1), 0.3)).to_event(1))


@pytest.mark.parametrize("name", MULTISAMPLE)
def test_latents_that_are_not_reparametrised_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="'s'.*Independent"):
        Objective(Discrete(), Discrete(), name, 3)(data(), LENGTHS)


def test_what_the_doubly_reparametrised_gradient_cannot_do_is_refused() -> None:
    pair = small_pair("dsae")
    objective = Objective(pair.model, pair.guide, "dreg", 3)
    with pytest.raises(UserError, match=r"\[1\.0, 2\.0\]"):
        objective(data(), LENGTHS, beta_sites={"v": 2.0})
    guide: Any = pair.guide
    guide.x = nn.Sequential(guide.x, nn.Dropout(0.5))
    with pytest.raises(UserError, match="dropout"):
        objective(data(), LENGTHS)
    with torch.no_grad():
        assert objective(data(), LENGTHS).multi_sample is not None


def test_log_mean_exp_is_taken_over_particles() -> None:
    log_weight = torch.tensor([[0.0, 1000.0], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([torch.tensor([1.0, torch.e]).mean().log(), 1000.0 - torch.tensor(2.0).log()])
    torch.testing.assert_close(log_mean_exp(log_weight), expected.double(), rtol=1e-7, atol=0)
