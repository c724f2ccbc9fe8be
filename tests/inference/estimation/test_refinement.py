"""Refined guides held to a linear-Gaussian chain, whose likelihood, posterior and best mean field are closed forms."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from guides.core.guide import Guide
from inference.estimation.importance import estimate, log_weights
from inference.estimation.refinement import Refined, refine
from inference.particles.particle_filter import smc
from models.dkf import DKF, DKFSettings
from tests.cudnn import CuDNN
from tests.pairs import LENGTHS, data, small_pair
from tests.support.guides import guide_of

PULL, NOISE, GAIN, SCALE = 0.9, 0.5, torch.tensor([1.0, -0.5]).double(), torch.tensor([0.6, 0.5]).double()
FRAMES = torch.tensor([4, 3])
SEEDS = ["a", "b"]


class Linear(nn.Module):
    """N(0.9 z, 0.5^2)."""

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Independent(dist.Normal(PULL * z, torch.full_like(z, NOISE)), 1)


def chain() -> DKF:
    """A DKF that is z_t = 0.9 z_{t-1} + noise, x_t = c z_t + noise, one latent and two data dimensions."""
    model = DKF(DKFSettings(z_dim=1, bins=2, z_x=[], likelihood="gaussian", input="raw", variance_floor=0.0)).double()
    model.transition = Linear()  # type: ignore[assignment]  # attributes of a Module
    affine = model.likelihood.affine
    assert isinstance(affine, nn.Linear)
    with torch.no_grad():
        affine.weight.copy_(torch.cat([GAIN, torch.zeros(2)])[:, None])
        affine.bias.copy_(torch.cat([torch.zeros(2), 2.0 * SCALE.log()]))
    return model


def sequences() -> Tensor:
    x = 1.5 * torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return x * (torch.arange(4)[:, None] < FRAMES)[..., None]


def closed_forms() -> tuple[Tensor, Tensor]:
    """log p(x) of each sequence, and the KL of the best mean field from the posterior.

    With precision Lambda of p(z | x), the factorised Gaussian of least KL(q, p) has the variances 1 / Lambda_tt, and
    that KL is (sum_t log Lambda_tt - log det Lambda) / 2.
    """
    evidence, gaps = [], []
    for n, frames in enumerate(FRAMES.tolist()):
        step = torch.eye(frames).double() - PULL * torch.diag(torch.ones(frames - 1).double(), -1)
        prior = step.t() @ step / NOISE**2
        observe = torch.kron(torch.eye(frames).double(), GAIN[:, None])  # (2T, T)
        noise = SCALE.square().repeat(frames)
        covariance = observe @ prior.inverse() @ observe.t() + noise.diag()
        x = sequences()[:frames, n].reshape(-1)
        evidence.append(torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x))
        posterior = prior + observe.t() @ (observe / noise[:, None])
        gaps.append(0.5 * (posterior.diagonal().log().sum() - posterior.logdet()))
    return torch.stack(evidence), torch.stack(gaps)


def bounds(model: DKF, guide: Guide) -> Tensor:
    found: Tensor = estimate(model, guide, sequences(), FRAMES, 1000, seeds=SEEDS).analytic
    return found


@pytest.mark.parametrize("name", ["all-markov", "past-memory", "all-meanfield"])
def test_what_is_left_is_the_gap_of_the_family(name: str) -> None:
    """Zero for guides that remember z_{t-1}, the closed form for the mean field."""
    model = chain()
    guide = guide_of(model, DKFSettings(), name)
    if name != "all-meanfield":  # what its networks make of z_{t-1} is not linear, and offsets cannot undo that
        nn.init.zeros_(guide.get_submodule("z_k.0").weight)  # type: ignore[arg-type]  # attributes of a Module
    exact, of_mean_field = closed_forms()
    before = exact - bounds(model, guide)
    remembers = name != "all-meanfield"
    torch.manual_seed(0)
    refined = refine(model, guide, sequences(), FRAMES, remembers=remembers, steps=200, lr=0.2)
    after = exact - bounds(model, refined)
    left = torch.zeros(2).double() if remembers else of_mean_field
    assert float(of_mean_field.min()) > 0.1 and float((before - left).min()) > 0.3  # there is something to gain
    torch.testing.assert_close(after, left, rtol=0.0, atol=0.03)
    assert all(p.requires_grad for module in (model, guide) for p in module.parameters())


@pytest.mark.parametrize("variant", ["dkf", "dsae", "rvae-noncausal", "ms_stcn"])
@pytest.mark.parametrize("lr", [0.02, 1.5])
def test_the_bound_is_never_lower_with_the_noise_it_was_compared_by(variant: str, lr: float) -> None:
    pair, x = small_pair(variant), data()
    remembers = variant in ("dkf", "rvae-noncausal")
    seeds = [f"s{n}" for n in range(4)]
    torch.manual_seed(0)
    refined = refine(pair.model, pair.guide, x, LENGTHS, remembers=remembers, steps=6, particles=2, lr=lr, seeds=seeds)
    before, after = (
        estimate(pair.model, g, x, LENGTHS, 8, chunk=2, seeds=seeds).analytic for g in (pair.guide, refined)
    )
    assert bool((after >= before - 1e-9).all())
    assert bool((after > before + 1e-3).any()) or lr > 1.0


@pytest.mark.parametrize(("variant", "guide"), [("dkf", "paper"), ("dsae", "paper"), ("vrnn", "all-memory")])
def test_without_offsets_it_is_the_guide_under_every_estimator(variant: str, guide: str) -> None:
    pair, x = small_pair(variant, guide), data()
    seeds = [f"s{n}" for n in range(4)]
    refined = Refined(pair.model, pair.guide, x, LENGTHS, remembers=variant != "dsae")
    with torch.no_grad():
        one, other = (log_weights(pair.model, g, x, LENGTHS, 3, seeds=seeds) for g in (pair.guide, refined))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        first, second = (smc(pair.model, g, x, LENGTHS, 5, seeds=seeds).log_evidence for g in (pair.guide, refined))
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


def test_offsets_of_a_sequence_touch_no_other() -> None:
    pair, x = small_pair("dkf"), data()
    seeds = [f"s{n}" for n in range(4)]
    refined = Refined(pair.model, pair.guide, x, LENGTHS, remembers=True)
    with torch.no_grad():
        for p in refined.offsets.values():
            p[:, 1].add_(0.3)
        one, other = (log_weights(pair.model, g, x, LENGTHS, 3, seeds=seeds) for g in (pair.guide, refined))
    changed = ((one - other).abs() > 1e-9).any(0)
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("variant", "guide"),
    [
        (name, "paper")
        for name in ("storn", "vrnn", "rvae", "rvae-noncausal", "dsae", "z_forcing", "beta_vae", "fhvae-gru")
    ]
    + [("dkf", "all-memory"), ("vae", "past-memory")],
)
def test_gradients_flow_through_a_frozen_run_on_cudnn(variant: str, guide: str) -> None:
    """cuDNN has no backward pass of a network that was run in eval mode, in which an evaluation finds all modules."""
    pair = small_pair(variant, guide)
    pair.model.eval()
    pair.guide.eval()
    with CuDNN() as seen:
        refine(pair.model, pair.guide, data(), LENGTHS, remembers=False, steps=1, particles=1)
    assert seen.precisions
