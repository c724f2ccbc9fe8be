"""The KVAE against one joint Gaussian of all frames, and against a Kalman filter of Pyro's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from guides.core.family import FamilySettings
from guides.registry import build_guide, guide_class
from inference.estimation.importance import estimate
from inference.objectives.elbo import Objective
from inference.particles.particle_filter import smc
from inference.runs import create, load_run
from inference.settings.resolve import resolve
from inference.training.session import start
from models.kvae import KVAE, KVAESettings
from models.nn.kalman import KalmanPredictor, smooth
from models.registry import build_model
from tests.pairs import traced

T, N = 12, 2


def dynamics(a_dim: int = 2, z_dim: int = 4, modes: int = 3) -> KalmanPredictor:
    """Dynamics with weights large enough that its modes differ, in float64."""
    torch.manual_seed(3)
    net = KalmanPredictor(a_dim, z_dim, modes, width=5, initial=2.0).double()
    with torch.no_grad():
        net.A.add_(0.3 * torch.randn_like(net.A))
        net.C.copy_(torch.randn_like(net.C))
        net.weights.a_0.copy_(torch.randn_like(net.weights.a_0))
        net.weights.head.weight.mul_(5.0)
    return net


def observed(a_dim: int = 2) -> Tensor:
    return torch.randn(T, N, a_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def joint(net: KalmanPredictor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The joint Gaussian of z_{1:T} for one sequence a (T, D), block by block: its covariance (T L, T L), the matrix
    that makes a of z (T D, T L), and the weights' matrices A.
    """
    before = torch.cat([net.weights.a_0[None], a[:-1]])
    out, _ = net.weights.lstm.net(before[:, None])
    alpha = net.weights.head(out[:, 0]).softmax(-1)
    A = torch.einsum("tk,kij->tij", alpha, net.A)
    C = torch.einsum("tk,kij->tij", alpha, net.C)
    frames, L = len(a), net.z_dim
    blocks = [[torch.zeros(L, L, dtype=a.dtype)] * frames for _ in range(frames)]
    blocks[0][0] = net.initial * torch.eye(L, dtype=a.dtype)
    for t in range(1, frames):
        blocks[t][t] = A[t] @ blocks[t - 1][t - 1] @ A[t].T + net.transition * torch.eye(L, dtype=a.dtype)
        for s in range(t):
            blocks[t][s] = A[t] @ blocks[t - 1][s]
            blocks[s][t] = blocks[t][s].T
    covariance = torch.cat([torch.cat(row, dim=1) for row in blocks])
    return covariance, torch.block_diag(*C), A


def log_density(net: KalmanPredictor, a: Tensor) -> Tensor:
    """log p(a) of one sequence by its joint Gaussian."""
    covariance, emit, _ = joint(net, a)
    whole = emit @ covariance @ emit.T + net.emission * torch.eye(a.numel(), dtype=a.dtype)
    density: Tensor = dist.MultivariateNormal(torch.zeros(a.numel(), dtype=a.dtype), whole).log_prob(a.flatten())
    return density


def model_and_guide() -> tuple[KVAE, Any]:
    torch.manual_seed(0)
    settings = KVAESettings(bins=3, z_dim=3, a_dim=2, alpha=4, a_x=[5], input="raw", likelihood="gaussian")
    model = build_model(settings).double()
    assert isinstance(model, KVAE)
    guide = build_guide(model, settings, guide_class(settings, "paper").Settings(name="paper"))
    return model, guide.double()


def test_log_density_and_its_gradient_are_those_of_the_joint_gaussian() -> None:
    model, _ = model_and_guide()
    model.dynamics = dynamics(z_dim=4)
    a = observed().requires_grad_()
    loc_and_factor, _ = model.dynamics(torch.cat([torch.zeros_like(a[:1]), a[:-1]]))
    found = model.prior(loc_and_factor).log_prob(a).sum(0)
    wanted = torch.stack([log_density(model.dynamics, a[:, n]) for n in range(N)])
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    parameters = [a, *model.dynamics.parameters()]
    ours, theirs = (torch.autograd.grad(v.sum(), parameters, retain_graph=True) for v in (found, wanted))
    for mine, oracle in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-8, atol=1e-8)


def test_smoothed_moments_are_those_of_the_joint_gaussian_given_a() -> None:
    net, a = dynamics(), observed()
    _, moments = smooth(net, a)
    for n in range(N):
        covariance, emit, _ = joint(net, a[:, n])
        whole = emit @ covariance @ emit.T + net.emission * torch.eye(a[:, n].numel(), dtype=a.dtype)
        gain = torch.linalg.solve(whole, emit @ covariance).T
        mean = (gain @ a[:, n].flatten()).reshape(T, -1)
        given = covariance - gain @ emit @ covariance
        torch.testing.assert_close(moments.mean[:, n], mean.detach(), rtol=1e-8, atol=1e-8)
        for t in range(T):
            block = given[t * net.z_dim : (t + 1) * net.z_dim, t * net.z_dim : (t + 1) * net.z_dim]
            torch.testing.assert_close(moments.covariance[t, n], block.detach(), rtol=1e-8, atol=1e-8)


def test_missing_frames_are_filled_from_those_that_are_there() -> None:
    """With one mode alpha does not depend on a, so conditioning the joint Gaussian on what is there is exact."""
    net, a = dynamics(modes=1), observed()
    present = torch.ones(T, N, dtype=torch.bool)
    present[4:7, 0] = present[9:, 1] = False
    filled, moments = smooth(net, a, present)
    for n in range(N):
        covariance, emit, _ = joint(net, a[:, n])
        kept = emit[present[:, n].repeat_interleave(net.a_dim)]
        there = a[present[:, n], n].flatten()
        whole = kept @ covariance @ kept.T + net.emission * torch.eye(len(there), dtype=a.dtype)
        mean = covariance @ kept.T @ torch.linalg.solve(whole, there)
        torch.testing.assert_close(moments.mean[:, n].flatten(), mean.detach(), rtol=1e-8, atol=1e-8)
        expected = (emit @ mean).reshape(T, -1).detach()
        missing = ~present[:, n]
        torch.testing.assert_close(filled[missing, n], expected[missing], rtol=1e-8, atol=1e-8)
    assert torch.equal(filled[present], a[present])


def test_covariances_stay_positive_definite_in_single_precision_over_4000_frames() -> None:
    torch.manual_seed(0)
    net = KalmanPredictor(4, 8, 3, width=5, spread=1.0)
    with torch.no_grad():
        a = torch.randn(4000, 1, 4).cumsum(0) * 0.1
        out, _ = net(a)
        factors = out[..., 4:].unflatten(-1, (4, 4))
        filled, moments = smooth(net, a[:300])
    assert torch.isfinite(out).all() and (factors.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (torch.linalg.eigvalsh(moments.covariance.double()) > 0).all() and torch.isfinite(filled).all()


def linear_kvae() -> tuple[KVAE, Any, Tensor, Tensor, Tensor]:
    """A KVAE with K = 1 and a linear Gaussian decoder, Pyro's filter of its x, four frames of x, and the decoder."""
    torch.manual_seed(0)
    settings = KVAESettings(bins=2, z_dim=2, a_dim=2, alpha=3, modes=1, a_x=[], input="raw", likelihood="gaussian")
    settings.initial_variance, settings.emission_variance, settings.transition_variance = 1.0, 0.5, 0.3
    model: Any = build_model(settings).double()
    D, b = torch.tensor([[0.7, -0.4], [0.2, 0.9]]).double(), torch.tensor([0.1, -0.2]).double()
    with torch.no_grad():
        model.dynamics.C.copy_(torch.tensor([[[1.0, 0.5], [-0.3, 0.8]]]))
        model.dynamics.A.copy_(torch.tensor([[[0.9, 0.2], [-0.2, 0.7]]]))
        weight, bias = model.likelihood.affine.weight, model.likelihood.affine.bias
        weight.copy_(torch.cat([D, torch.zeros(2, 2)]))
        bias.copy_(torch.cat([b, torch.full((2,), math.log(0.4), dtype=torch.float64)]))
    eye, zero = torch.eye(2).double(), torch.zeros(2).double()
    A, C = model.dynamics.A[0].detach(), model.dynamics.C[0].detach()
    # Pyro's filter applies a transition before its first observation: one that forgets where it came from.
    hmm = dist.GaussianHMM(
        dist.MultivariateNormal(zero, eye),
        torch.stack([0.0 * eye, A.T, A.T, A.T]),
        dist.MultivariateNormal(zero.expand(4, 2), torch.stack([eye, 0.3 * eye, 0.3 * eye, 0.3 * eye])),
        (D @ C).T,
        dist.MultivariateNormal(b, D @ (0.5 * eye) @ D.T + 0.4 * eye),
    )
    return model, hmm, hmm.sample()[:, None], D, b


def test_density_over_the_exact_posterior_is_pyros_kalman_filter() -> None:
    """log p(x) = log p(x, a) - log p(a | x) at any a."""
    model, hmm, x, D, b = linear_kvae()
    covariance, emit, _ = joint(model.dynamics, torch.zeros(4, 2).double())
    of_a = emit @ covariance @ emit.T + model.dynamics.emission * torch.eye(8).double()
    decode = torch.block_diag(*[D] * 4)
    gain = torch.linalg.solve(decode @ of_a @ decode.T + 0.4 * torch.eye(8).double(), decode @ of_a).T
    posterior = dist.MultivariateNormal(gain @ (x.flatten() - b.repeat(4)), of_a - gain @ decode @ of_a)
    a = torch.randn(8).double()
    trace = traced(poutine.condition(model, {"a": a.reshape(4, 1, 2)}), x, torch.tensor([4]))
    found = trace.log_prob_sum() - posterior.log_prob(a)
    torch.testing.assert_close(found, hmm.log_prob(x[:, 0]), rtol=1e-8, atol=1e-8)


def test_importance_weights_and_the_rao_blackwellised_filter_agree_with_pyros_kalman_filter() -> None:
    """To 15 % of p(x), five standard errors and more; the ELBO stays below."""
    model, hmm, x, _, _ = linear_kvae()
    settings = FamilySettings(name="all-memory", x_g=[8], g_dim=8, z_k=[8], k_dim=8, g_z=[8])
    guide: Any = build_guide(model, KVAESettings(a_dim=2), settings).double()
    objective = Objective(model.requires_grad_(False), guide)
    optimiser = torch.optim.Adam(guide.parameters(), lr=2e-2)
    for _ in range(100):
        optimiser.zero_grad()
        objective(x.expand(-1, 16, -1), torch.full((16,), 4)).loss.backward()
        optimiser.step()
    exact, many, one = hmm.log_prob(x[:, 0]), torch.full((2000,), 4), torch.tensor([4])
    with torch.no_grad():
        bounds = objective(x.expand(-1, 2000, -1), many).terms.elbo
        iwae = torch.stack([estimate(model, guide, x, one, particles=1000).iwae[0] for _ in range(10)])
        filtered = torch.stack([smc(model, guide, x, one, particles=500).log_evidence[0] for _ in range(10)])
    assert bounds.mean() + 4 * bounds.std() / 2000**0.5 < exact
    for found in (iwae.exp().mean(), filtered.exp().mean()):  # unbiased estimates of p(x)
        assert abs(float(found / exact.exp()) - 1.0) < 0.15


def test_states_drawn_or_integrated_out_have_the_same_density_of_a() -> None:
    """log p(a) = log p(a, z) - log p(z | a) at any z: here at the smoothed means of a joint Gaussian."""
    settings = KVAESettings(
        bins=3, z_dim=2, a_dim=2, alpha=4, a_x=[5], input="raw", likelihood="gaussian", integrate=False
    )
    torch.manual_seed(0)
    model = build_model(settings).double()
    assert isinstance(model, KVAE)
    model.dynamics = dynamics(z_dim=2)
    a, lengths = observed()[:, :1], torch.tensor([T])
    covariance, emit, _ = joint(model.dynamics, a[:, 0])
    whole = emit @ covariance @ emit.T + model.dynamics.emission * torch.eye(2 * T, dtype=a.dtype)
    gain = torch.linalg.solve(whole, emit @ covariance).T
    posterior = dist.MultivariateNormal(gain @ a[:, 0].flatten(), covariance - gain @ emit @ covariance)
    z = torch.randn(T, 1, 2, dtype=torch.float64)
    trace = traced(poutine.condition(model, {"a": a, "z": z}), torch.zeros(T, 1, 3, dtype=torch.float64), lengths)
    trace.compute_log_prob()
    model.dynamics.initial = 2.0
    both = trace.nodes["a"]["log_prob_sum"] + trace.nodes["z"]["log_prob_sum"]
    torch.testing.assert_close(
        both - posterior.log_prob(z.flatten()), log_density(model.dynamics, a[:, 0]), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("guide", ["paper", "future-markov", "all-memory"])
def test_a_guide_of_the_family_infers_a(guide: str) -> None:
    assert guide_class("kvae", guide).parents(guide_class("kvae", guide).Settings(name=guide), ("a",)).keys() == {"a"}


def test_the_weights_of_modes_stay_as_they_are_during_the_warm_up(tmp_path: Path) -> None:
    settings = ["data.corpus=synthetic", "model.bins=33", "data.hop=32", "data.window=64", "train.batch_size=2"]
    settings += [f"run={tmp_path / 'run'}", "train.steps=3", "model.dynamics_warmup=3", "train.tensorboard=false"]
    run = start(resolve("kvae", overrides=settings), lambda line: None)
    trained, fresh = load_run(run, "last.pt").model, create(resolve("kvae", overrides=settings))[0]
    for (name, after), before in zip(trained.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(after, before) == name.startswith("dynamics.weights."), name


def test_it_trains_with_its_defaults() -> None:
    assert resolve("kvae").model.dynamics_warmup == 0
