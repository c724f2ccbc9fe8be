"""Pyro's tools on models of this library, and on a switching model of a user's: AutoGuides, NUTS, random weights,
dependencies, enumeration, score-function gradients.
"""

from __future__ import annotations

import itertools
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoLowRankMultivariateNormal, AutoNormal
from pyro.infer.inspect import get_dependencies
from pyro.nn.module import PyroSample, to_pyro_module_
from pyro.optim.pytorch_optimizers import Adam  # type: ignore[attr-defined]  # made when Pyro is imported
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from inference.objectives.estimators import ESTIMATORS
from models.core.program import Program
from models.core.time_axis import Sites, TimeAxis, run
from models.registry import model_names
from models.structure.parents import frames_of
from tests.pairs import VARIANTS, data, latents, per_sequence, scored, small_pair, traced

LENGTHS = torch.tensor([3, 2])
WITH_LATENTS = [name for name in model_names() if name != "rnn"]


@pytest.mark.parametrize("variant", WITH_LATENTS)
@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta, AutoDiagonalNormal, AutoLowRankMultivariateNormal])
def test_autoguides_raise_the_bound_of_a_batch(kind: Any, variant: str) -> None:
    """With the noise of the first step at the first and the last, so that only what was learnt differs."""
    model, x = small_pair(variant).model.requires_grad_(False), data(LENGTHS)
    guide = kind(model)
    svi = SVI(model, guide, Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(0)
    svi.step(x, LENGTHS)
    torch.manual_seed(1)
    first = svi.evaluate_loss(x, LENGTHS)
    for _ in range(10):
        svi.step(x, LENGTHS)
    torch.manual_seed(1)
    assert svi.evaluate_loss(x, LENGTHS) < first


@pytest.mark.parametrize("variant", WITH_LATENTS)
def test_nuts_draws_latents_of_a_short_sequence(variant: str) -> None:
    """Its potential energy is minus the log joint, which the trace frame by frame has independently of it."""
    pair = small_pair(variant)
    lengths = torch.tensor([3])
    x = data(lengths)
    kernel = NUTS(pair.model, step_size=0.02, adapt_step_size=False, max_tree_depth=2)
    mcmc = MCMC(kernel, num_samples=4, warmup_steps=1, disable_progbar=True)
    mcmc.run(x, lengths)
    found = mcmc.get_samples()
    assert {name: z.shape[1:] for name, z in found.items()} == {
        n: z.shape for n, z in latents(pair, x, lengths).items()
    }
    for name, z in found.items():
        assert bool(z.isfinite().all()) and bool((z[1:] != z[:-1]).all()), name
    energies = []
    for draw in range(4):
        values = {name: z[draw] for name, z in found.items()}
        energies.append(float(kernel.potential_fn(values).detach()))
        trace = scored(pair.model, values, x, lengths, "stepwise" if pair.model.stepwise else "auto")
        log_joint = torch.stack([*per_sequence(trace).values()]).sum()
        assert energies[-1] == pytest.approx(-float(log_joint.detach()), rel=1e-10)
    assert len({*energies}) == 4 and not mcmc.diagnostics()["divergences"]["chain 0"]


def test_nuts_has_the_posterior_of_a_linear_model() -> None:
    """p(z_t) = N(0, 1), p(x_t | z_t) = N(z_t, 1): the posterior is N(x_t / 2, 1 / 2)."""

    class Linear(Program):
        def step(self, t: TimeAxis) -> None:
            zero = self.like.new_zeros(1)
            t.observe("x", dist.Normal(t.sample("z", dist.Normal(zero, 1.0).to_event(1)), 1.0).to_event(1))

        def forward(self, x: Tensor, lengths: Tensor) -> None:
            run(self.step, Sites({"x": x}, lengths, {"x": 1, "z": 1}, self.like))

    x = torch.tensor([1.0, -2.0, 3.0])[:, None, None]
    mcmc = MCMC(NUTS(Linear()), num_samples=100, warmup_steps=40, disable_progbar=True)
    mcmc.run(x, torch.tensor([3]))
    z = mcmc.get_samples()["z"]
    assert bool(((z.mean(0) - x / 2).abs() < 6 * (0.5 / 30) ** 0.5).all())  # 6 sigma at 30 effective draws
    assert bool(((z.var(0) - 0.5).abs() < 0.4).all())


@pytest.mark.parametrize("variant", VARIANTS)
def test_dependencies_frame_by_frame_are_the_declared_parents(variant: str) -> None:
    pair = small_pair(variant)
    if not pair.model.stepwise:
        return
    inspected: Any = get_dependencies(pair.model, (data(LENGTHS), LENGTHS, "stepwise"))
    found = inspected["prior_dependencies"]
    checked = set()
    for site, parents in pair.model.parents(pair.model_settings).items():
        for t in range(3):
            own = site if site in found else f"{site}_{t}"
            declared = {f"{name}_{s}" if s >= 0 else name for p in parents for name, s in frames_of(p, t, 3)}
            expected = {name for name in declared if not name.startswith("x_")}  # data carry no provenance
            assert {*found[own]} - {own} == expected, (site, t)
            checked.add(own)
    assert checked == set(found)
    graph = pyro.render_model(pair.model, model_args=(data(LENGTHS), LENGTHS, "stepwise"))
    for parent in {*found["x_0"]} - {"x_0"}:
        assert f"{parent} -> x_0" in graph.source


@pytest.mark.parametrize("variant", ["dkf", "vrnn"])
def test_random_weights_are_latents(variant: str) -> None:
    """A Bayesian DKF: every weight has a prior; its program has the density of the one with these weights in place."""
    model, x = small_pair(variant).model, data(LENGTHS)
    plain = small_pair(variant).model
    to_pyro_module_(model)
    for module in list(model.modules()):
        for name, weight in list(module._parameters.items()):
            assert weight is not None
            prior = dist.Normal(torch.zeros_like(weight), 0.2).to_event(weight.dim())
            setattr(module, name, PyroSample(prior))
    trace = traced(model, x, LENGTHS)
    own = type(plain).__name__ + "."
    weights = {n.removeprefix(own): s["value"] for n, s in trace.nodes.items() if n.startswith(own)}
    assert set(weights) == {name for name, _ in plain.named_parameters()}
    plain.load_state_dict(weights, strict=False)
    trace.compute_log_prob()
    expected = traced(poutine.condition(plain, {"z": trace.nodes["z"]["value"]}), x, LENGTHS)
    expected.compute_log_prob()
    for site in ("x", "z"):
        torch.testing.assert_close(trace.nodes[site]["log_prob"], expected.nodes[site]["log_prob"])
    svi = SVI(model, AutoNormal(model), Adam({"lr": 1e-2}), Trace_ELBO())
    assert all(svi.step(x, LENGTHS) > 0.0 for _ in range(2))


class Switching(Program):
    """p(s_t | s_{t-1}) p(x_t | s_t), s_t one of three regimes; without `looks_back` p(s_t)."""

    def __init__(self, *, looks_back: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.looks_back = looks_back
        self.transition, self.emission = nn.Linear(3, 3), nn.Linear(3, 6)
        self.double()

    def step(self, t: TimeAxis) -> None:
        before = t.prev("s") if self.looks_back else self.like.new_zeros(1, 1, 3)
        s = t.sample("s", dist.OneHotCategorical(logits=3.0 * self.transition(before)))
        t.observe("x", dist.Normal(self.emission(s), 1.0).to_event(1))

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto") -> None:
        run(self.step, Sites({"x": x}, lengths, {"x": 6, "s": 3}, self.like), how)

    def log_joint(self, x: Tensor, regimes: tuple[int, ...]) -> Tensor:
        """log p(x, s) of one sequence, written by hand."""
        before, total = torch.zeros(3).double(), torch.zeros(()).double()
        for frame, regime in zip(x[: len(regimes), 0], regimes, strict=True):
            s = torch.eye(3).double()[regime]
            back = before if self.looks_back else torch.zeros(3).double()
            total = total + torch.log_softmax(3.0 * self.transition(back), -1)[regime]
            total = total + torch.distributions.Normal(self.emission(s), 1.0).log_prob(frame).sum()
            before = s
        return total


class Regimes(Program):
    """q(s_t | x_t)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.q = nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto") -> None:
        sites = Sites({"x": x}, lengths, {"x": 6, "s": 3}, self.like)

        def step(t: TimeAxis) -> None:
            t.sample("s", dist.OneHotCategorical(logits=self.q(t.feature(sites.data["x"]))))

        run(step, sites, how)


def nothing(*_: Any) -> None:
    """The guide of latents that are all summed over."""


def test_enumeration_is_the_sum_over_all_regimes() -> None:
    x, lengths = data(torch.tensor([3])), torch.tensor([3])
    for looks_back, ways in ((False, ("auto", "stepwise")), (True, ("stepwise",))):
        model = Switching(looks_back=looks_back)
        paths = itertools.product(range(3), repeat=3)
        expected = torch.stack([model.log_joint(x, path) for path in paths]).logsumexp(0)
        for how in ways:
            elbo = TraceEnum_ELBO(max_plate_nesting=2)
            loss = elbo.differentiable_loss(config_enumerate(model), nothing, x, lengths, how)
            torch.testing.assert_close(-loss, expected)
    with pytest.raises(UserError, match="stepwise"):
        TraceEnum_ELBO(max_plate_nesting=2).loss(config_enumerate(Switching()), nothing, x, lengths)


def test_score_function_gradients_are_right_frame_by_frame_and_refused_at_once() -> None:
    """Against the gradient of the bound summed over all regimes, within 6 standard errors."""
    x, lengths = data(torch.tensor([2])), torch.tensor([2])
    model, guide = Switching(), Regimes()
    with pytest.raises(ValueError, match="how='stepwise'"):
        Trace_ELBO().differentiable_loss(model, guide, x, lengths)
    with torch.no_grad():
        assert Trace_ELBO().loss(model, guide, x, lengths) > 0.0  # its value is right
    log_q = torch.log_softmax(guide.q(x[:, 0]), -1)
    bound = torch.zeros(()).double()
    for path in itertools.product(range(3), repeat=2):
        of_path = log_q[0, path[0]] + log_q[1, path[1]]
        bound = bound + of_path.exp() * (model.log_joint(x, path) - of_path)
    (expected,) = torch.autograd.grad(-bound, [guide.q.bias])
    elbo = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=2)
    blocks = []
    for _ in range(20):
        loss = elbo.differentiable_loss(model, guide, x, lengths, "stepwise")
        blocks.append(torch.autograd.grad(loss, [guide.q.bias])[0])
    got = torch.stack(blocks)
    assert bool(((got.mean(0) - expected).abs() < 6 * got.std(0) / 20**0.5).all())


@pytest.mark.parametrize("how", ["auto", "stepwise"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_our_objectives_have_right_scores_or_refuse(name: str, how: str) -> None:
    """A latent that is not reparametrised: only `elbo` has its score, frame by frame."""
    model, guide = Switching(), Regimes()
    x, lengths = data(torch.tensor([2])), torch.tensor([2])
    found: list[list[Tensor]] = []
    for estimator in (ESTIMATORS[name](3), Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=2)):
        torch.manual_seed(1)
        if (name, how) != ("elbo", "stepwise") and not found:
            with pytest.raises(ValueError, match="reparametrised|how='stepwise'"):
                estimator.differentiable_loss(model, guide, x, lengths, how)
            return
        loss = estimator.differentiable_loss(model, guide, x, lengths, how)
        found.append([loss, *torch.autograd.grad(loss, [*guide.parameters(), *model.parameters()])])
    torch.testing.assert_close(found[0], found[1])
