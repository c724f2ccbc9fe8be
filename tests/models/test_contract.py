"""What every model, every guide and every pair of them owe, whatever their networks. A new one is here by being
registered.
"""

from __future__ import annotations

import io

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from guides.core.guide import Guide
from inference.handlers.given_noise import given_noise
from inference.objectives.elbo import Objective
from models.core.time_axis import Sites
from models.dvae import DVAE
from models.likelihoods.base import likelihood_kind
from models.structure.parents import frames_of
from tests.pairs import (
    BINS,
    FRAMES,
    LENGTHS,
    PAIRS,
    VARIANTS,
    Pair,
    data,
    is_point,
    latents,
    measure,
    noise,
    parameters,
    per_sequence,
    scored,
    small_pair,
    traced,
)

every_model = pytest.mark.parametrize("model_name", VARIANTS)
every_pair = pytest.mark.parametrize(("model_name", "guide_name"), PAIRS)
every_program = pytest.mark.parametrize(
    ("model_name", "guide_name"), [*((variant, None) for variant in VARIANTS), *PAIRS]
)
"""Each model once, without a guide's name, and each guide with its model."""
INTERPRETERS = ("looped", "stepwise")
OUTSIDE_TIME = {"v", "w", "mu2", "z2", "z1"}


def _program(model_name: str, guide_name: str | None) -> tuple[Pair, DVAE | Guide]:
    """A pair, and the program of it that is tested: its guide, or with its paper's guide the model."""
    pair = small_pair(model_name, guide_name or "paper")
    return pair, pair.model if guide_name is None else pair.guide


def _close(got: Tensor, expected: Tensor, relative: float = 1e-8) -> bool:
    return bool(((got - expected).abs() <= relative * expected.abs().max().clamp_min(1e-12)).all())


@every_program
def test_interpreters_agree_on_densities_and_gradients(model_name: str, guide_name: str | None) -> None:
    pair, program = _program(model_name, guide_name)
    x = data()
    values = latents(pair, x, LENGTHS)
    weights = torch.linspace(0.5, 2.0, len(LENGTHS), dtype=torch.float64)  # so that sequences cannot trade places
    named = [(name, p) for name, p in program.named_parameters()]
    expected: dict[str, Tensor] = {}
    gradients: list[Tensor | None] = []
    for how in ("auto", *INTERPRETERS) if program.stepwise else ("auto",):
        got = per_sequence(scored(program, values, x, LENGTHS, how))
        assert set(got) == {*values} | ({"x"} if program is pair.model else set())
        if not got:  # the guide of a model without latents
            continue
        total = torch.stack([(weights * v).sum() for v in got.values()]).sum()
        grads = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
        if how == "auto":
            expected, gradients = got, list(grads)
            continue
        for site in expected:
            assert _close(got[site], expected[site]), (how, site)
        for (name, _), a, b in zip(named, grads, gradients, strict=True):
            assert (a is None) == (b is None), (how, name)
            assert a is None or b is None or _close(a, b), (how, name)


@every_program
def test_a_ragged_batch_equals_its_sequences_one_by_one(model_name: str, guide_name: str | None) -> None:
    pair, program = _program(model_name, guide_name)
    x = data()
    values = latents(pair, x, LENGTHS)
    together = per_sequence(scored(program, values, x, LENGTHS, "auto"))
    for n, length in enumerate(LENGTHS.tolist()):
        own = {
            name: v[: -(-length // pair.model.strides.get(name, 1)), n : n + 1] if v.dim() > 2 else v[n : n + 1]
            for name, v in values.items()
        }
        alone = per_sequence(scored(program, own, x[:length, n : n + 1], LENGTHS[n : n + 1], "auto"))
        for site, value in alone.items():
            torch.testing.assert_close(together[site][n], value[0], rtol=1e-10, atol=1e-10)


@every_pair
def test_padding_has_no_effect_even_if_it_is_nan(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    objective = Objective(pair.model, pair.guide)
    found = []
    for padding in (0.0, float("nan"), 1e30):
        x = data()
        x[torch.arange(FRAMES)[:, None] >= LENGTHS] = padding
        torch.manual_seed(3)
        objective.zero_grad()
        bound = objective(x, LENGTHS)
        bound.loss.backward()
        found.append((bound.loss.detach(), {n: p.grad.clone() for n, p in parameters(pair).items()}))  # type: ignore[union-attr]  # a gradient that another test asserts
    for loss, gradients in found[1:]:
        assert torch.equal(loss, found[0][0])
        assert all(torch.equal(gradients[name], g) for name, g in found[0][1].items())


@every_pair
def test_every_parameter_gets_a_gradient(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    Objective(pair.model, pair.guide)(data(), LENGTHS).loss.backward()
    without = [n for n, p in parameters(pair).items() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert without == []


@every_pair
def test_objective_is_the_same_drawn_by_any_interpreter(model_name: str, guide_name: str) -> None:
    """Model and guide together: the pathwise gradient through the draws, with the draws of one interpreter
    for all.
    """
    pair = small_pair(model_name, guide_name)
    if not pair.model.stepwise:
        with pytest.raises(ValueError, match="how='stepwise'"):
            pair.model(data(), LENGTHS, "stepwise")
        return
    objective = Objective(pair.model, pair.guide, "analytic")
    results = []
    for how in ("auto", *INTERPRETERS):
        objective.zero_grad()
        with given_noise(noise(pair)):
            bound = objective(data(), LENGTHS, how=how)
        bound.loss.backward()
        results.append((bound, {n: p.grad.clone() for n, p in parameters(pair).items()}))  # type: ignore[union-attr]  # a gradient that another test asserts
    for bound, gradients in results[1:]:
        torch.testing.assert_close(bound.loss, results[0][0].loss, rtol=1e-10, atol=0)
        torch.testing.assert_close(bound.terms.elbo, results[0][0].terms.elbo, rtol=1e-10, atol=0)
        assert all(_close(gradients[name], g) for name, g in results[0][1].items())


@every_pair
def test_saved_and_reloaded_gives_the_same_numbers(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    file = io.BytesIO()
    torch.save({"model": pair.model.state_dict(), "guide": pair.guide.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    torch.manual_seed(9)
    other = small_pair(model_name, guide_name)
    for p in parameters(other).values():
        torch.nn.init.normal_(p)
    other.model.load_state_dict(state["model"])
    other.guide.load_state_dict(state["guide"])
    bounds = []
    for chosen in (pair, other):
        torch.manual_seed(4)
        bounds.append(Objective(chosen.model, chosen.guide)(data(), LENGTHS).terms)
    assert torch.equal(bounds[0].elbo, bounds[1].elbo)


@every_program
def test_conditionals_depend_on_just_their_declared_parents(model_name: str, guide_name: str | None) -> None:
    """Causality by gradient: the density of a site at frame t moves with its declared parents, and with
    nothing else. A site with a time scale of its own declares them by its own steps, each some frames of the others.
    """
    pair, program = _program(model_name, guide_name)
    lengths = torch.tensor([FRAMES])
    x = data(lengths)
    values = latents(pair, x, lengths)
    of_guide = pair.guide.parents(pair.guide_settings, pair.model.latents)
    parents = pair.model.parents(pair.model_settings) if guide_name is None else of_guide
    inputs = {
        "x": x.clone().requires_grad_(),
        **{n: v.clone().requires_grad_() for n, v in values.items()},
    }
    trace = scored(program, {n: inputs[n] for n in values}, inputs["x"], lengths, "auto")
    for site, declared in parents.items():
        density = measure(trace.nodes[site])
        for t in range(len(density)) if site not in OUTSIDE_TIME else (-1,):
            own = pair.model.strides.get(site, 1)
            expected = {
                (name, s if s < 0 else f // pair.model.strides.get(name, 1))
                for parent in declared
                for name, s in frames_of(parent, t, FRAMES)
                for f in (range(s * own, min((s + 1) * own, FRAMES)) if s >= 0 else [s])
            } | (set() if is_point(trace.nodes[site]) else {(site, t)})
            at_t = density[t, 0] if t >= 0 else density[0]
            gradients = torch.autograd.grad(at_t, list(inputs.values()), retain_graph=True, allow_unused=True)
            moved = {
                node
                for name, gradient in zip(inputs, gradients, strict=True)
                if gradient is not None
                for node in _moved(name, gradient)
            }
            assert moved == expected, (site, t)


def _moved(name: str, gradient: Tensor) -> set[tuple[str, int]]:
    frames = [-1] if name in OUTSIDE_TIME else range(len(gradient))
    parts = [gradient] if name in OUTSIDE_TIME else gradient
    return {(name, s) for s, part in zip(frames, parts, strict=True) if bool(part.abs().max() > 0)}


@every_model
def test_what_is_generated_is_what_is_scored(model_name: str) -> None:
    """Run unconditioned, frame by frame, the model draws from the density that it gives all frames at
    once.
    """
    model = small_pair(model_name).model
    lengths = torch.tensor([5, 5])
    at_once = traced(model, None, lengths)
    at_once.compute_log_prob()
    x = at_once.nodes["x"]["value"]
    assert x.shape == (5, 2, BINS) and bool(likelihood_kind(model.likelihood_name).support.check(x).all())
    drawn = {name: at_once.nodes[name]["value"] for name in model.latents}
    expected = per_sequence(at_once)
    for site, value in per_sequence(scored(model, drawn, model.scaling.inverse(x), lengths, "auto")).items():
        torch.testing.assert_close(value, expected[site], rtol=1e-10, atol=1e-10)
    if not model.stepwise:
        return
    frames = traced(model, None, lengths, "stepwise")
    frames.compute_log_prob()
    expected = per_sequence(frames)

    def joined(name: str) -> Tensor:
        whole = name in frames.nodes
        return (
            frames.nodes[name]["value"]
            if whole
            else torch.cat([frames.nodes[f"{name}_{t}"]["value"] for t in range(5)])
        )

    settled = {name: joined(name) for name in model.latents}
    x = model.scaling.inverse(joined("x"))
    for site, value in per_sequence(scored(model, settled, x, lengths, "auto")).items():
        torch.testing.assert_close(value, expected[site], rtol=1e-10, atol=1e-10)


@every_pair
def test_particles_in_an_outer_plate_are_independent_draws(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    x = data()
    with pyro.plate("particles", 5, dim=-3):
        guide_trace = traced(pair.guide, x, LENGTHS)
        model_trace = traced(poutine.replay(pair.model, guide_trace), x, LENGTHS)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    for name in pair.model.latents:
        z = guide_trace.nodes[name]["value"]
        assert z.shape[0] == 5
        assert len(torch.unique(z[:, 0, 0, 0])) == (1 if is_point(guide_trace.nodes[name]) else 5)
    for k in range(5):
        drawn = {name: guide_trace.nodes[name]["value"][k] for name in pair.model.latents}
        values = {name: v[0] if name in OUTSIDE_TIME else v for name, v in drawn.items()}
        for program, trace in ((pair.model, model_trace), (pair.guide, guide_trace)):
            for site, value in per_sequence(scored(program, values, x, LENGTHS, "auto")).items():
                torch.testing.assert_close(measure(trace.nodes[site])[k].sum(0), value, rtol=1e-10, atol=1e-10)


@every_model
def test_misshapen_data_is_refused(model_name: str) -> None:
    with pytest.raises(ValueError, match=r"\(7, 4, 6\)"):
        small_pair(model_name).model(data().transpose(0, 1), LENGTHS)


@every_program
def test_an_unknown_interpreter_is_refused(model_name: str, guide_name: str | None) -> None:
    with pytest.raises(ValueError, match="backwards"):
        _program(model_name, guide_name)[1](data(), LENGTHS, "backwards")


def test_a_site_without_data_is_not_data() -> None:
    assert Sites({"x": None}, LENGTHS, {"x": BINS}, torch.zeros(1)).data == {}
