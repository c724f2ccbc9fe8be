"""Every model and guide is what Pyro's own tools expect: plain `SVI`, handlers that the library has never seen,
`Predictive`.
"""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.nn import PyroModule
from pyro.optim import PyroLRScheduler
from pyro.optim.pytorch_optimizers import Adam  # type: ignore[attr-defined]  # made when Pyro is imported
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.handlers.given_noise import given_noise
from inference.objectives.elbo import Objective
from models.registry import model_names
from tests.pairs import (
    LENGTHS,
    PAIRS,
    VARIANTS,
    data,
    frame_by_frame,
    latents,
    noise,
    parameters,
    per_sequence,
    scored,
    small_pair,
    traced,
)

FAMILY = {variant: [guide for of, guide in PAIRS if of == variant] for variant in VARIANTS}
SERVED = [(v, g) for v, guides in FAMILY.items() for g in ("paper", *[g for g in guides if "-" in g][3:4])]
"""Every model with its paper's guide and, if it has one latent in each frame, one of the family."""
LONG = [(v, "paper") for v in model_names()]
"""Those that are compared over 50 steps."""


@pytest.mark.parametrize(("variant", "guide"), [pair for pair in SERVED if pair not in LONG])
def test_plain_svi_trains_all_parameters_as_our_loop_does(variant: str, guide: str) -> None:
    """The same noise, so the same losses and weights as those of torch's Adam over our objective."""
    before = {name: p.detach().clone() for name, p in parameters(small_pair(variant, guide)).items()}
    pair = small_pair(variant, guide)
    svi = SVI(pair.model, pair.guide, Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(3)
    losses = [svi.step(data(), LENGTHS) for _ in range(4)]
    ours = small_pair(variant, guide)
    objective = Objective(ours.model, ours.guide)
    adam = torch.optim.Adam(objective.parameters(), lr=1e-2)
    torch.manual_seed(3)
    expected = []
    for _ in range(4):
        adam.zero_grad()
        bound = objective(data(), LENGTHS)
        bound.loss.backward()
        expected.append(float(bound.loss.detach()))
        adam.step()
    assert losses == pytest.approx(expected, rel=1e-8)
    after = parameters(ours)
    for name, parameter in parameters(pair).items():
        assert not torch.equal(parameter, before[name]), name
        torch.testing.assert_close(parameter, after[name], rtol=1e-6, atol=1e-8)
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize(("variant", "guide"), LONG)
def test_fifty_steps_with_a_schedule_are_those_of_our_loop(variant: str, guide: str) -> None:
    """Each shared weight (VRNN's network is the guide's too) is stepped once. The two take turns, on the same noise."""
    lengths = torch.tensor([5, 2])  # more than one step of the slowest layer of MS-STCN
    x, ours, theirs = data(lengths), small_pair(variant, guide), small_pair(variant, guide)
    before = {name: p.detach().clone() for name, p in parameters(ours).items()}
    schedule: Any = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.5}
    optim = PyroLRScheduler(torch.optim.lr_scheduler.ExponentialLR, schedule)
    svi = SVI(theirs.model, theirs.guide, optim, Trace_ELBO())
    objective = Objective(ours.model, ours.guide)
    adam = torch.optim.Adam(objective.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.ExponentialLR(adam, 0.5)
    losses: list[float] = []
    with pyro.validation_enabled(False):
        for step in range(50):
            torch.manual_seed(step)
            adam.zero_grad()
            bound = objective(x, lengths)
            bound.loss.backward()
            adam.step()
            losses.append(float(bound.loss.detach()))
            torch.manual_seed(step)
            assert svi.step(x, lengths) == pytest.approx(losses[-1], rel=1e-8)
            if step % 20 == 19:
                decay.step()
                optim.step()
    assert len({*losses}) == 50 and not pyro.get_param_store().keys()
    assert len(optim.optim_objs) == len(parameters(theirs))
    after = parameters(ours)
    for name, parameter in parameters(theirs).items():
        assert not torch.equal(parameter, before[name]), name
        torch.testing.assert_close(parameter, after[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("variant", "guide"), SERVED)
def test_the_bound_of_trace_elbo_is_the_same_frame_by_frame(variant: str, guide: str) -> None:
    """Plain Pyro sites, one for each frame, against all frames at once, with the same noise."""
    pair = small_pair(variant, guide)
    if not (pair.model.stepwise and pair.guide.stepwise):
        return
    losses = []
    for how in ("auto", "stepwise"):
        with given_noise(noise(pair)):
            losses.append(Trace_ELBO().loss(pair.model, pair.guide, data(), LENGTHS, how))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_importing_the_library_changes_no_setting_of_pyro() -> None:
    script = (
        "import pyro, torch; get = lambda: (pyro.settings.get(), torch.get_default_dtype()); before = get()\n"
        "import inference.training.session, inference.objectives.estimators, inference.estimation.individual_normal\n"
        "from guides.registry import guide_class; from models.registry import model_class, model_names\n"
        "[(model_class(name), guide_class(name, 'paper')) for name in model_names()]\n"
        "assert get() == before, get()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_programs_of_one_class_do_not_share_weights() -> None:
    """Neither two models, nor a model and its copy in one program."""
    pairs = [small_pair("dkf") for _ in range(2)]
    for pair in pairs:
        svi: Any = SVI(pair.model, pair.guide, Adam({"lr": 1e-2}), Trace_ELBO())
        svi.step(data(), LENGTHS)
    one, other = (parameters(pair) for pair in pairs)
    assert all(one[name] is not other[name] for name in one)
    model = pairs[0].model
    with poutine.trace(param_only=True) as listed:
        for twin in (model, copy.deepcopy(model)):
            poutine.block(twin, hide_types=["sample"])(data(), LENGTHS)
    assert len(listed.trace.nodes) == 2 * len(list(model.parameters()))


def test_parameters_are_listed_saved_and_lifted() -> None:
    pair = small_pair("dkf")
    trace = poutine.trace(pair.model, param_only=True).get_trace(data(), LENGTHS)
    nodes: dict[str, Any] = trace.nodes
    listed = {id(site["value"].unconstrained()) for site in nodes.values() if site["type"] == "param"}
    assert listed == {id(p) for p in pair.model.parameters()}
    assert isinstance(pair.model, PyroModule) and isinstance(pair.guide, PyroModule)
    file = io.BytesIO()
    torch.save(pair.model.state_dict(), file)
    file.seek(0)
    assert {*torch.load(file)} == {*small_pair("dkf").model.state_dict()}

    def stored(x: Tensor, lengths: Tensor) -> Tensor:
        pyro.module("dkf", pair.model)
        data: Tensor = pair.model(x, lengths)
        return data

    SVI(stored, pair.guide, Adam({"lr": 1e-2}), Trace_ELBO()).step(data(), LENGTHS)
    store = pyro.get_param_store()
    assert len(store) == len(list(pair.model.parameters()))
    assert torch.equal(store["dkf$$$z_x.0.weight"], pair.model.state_dict()["z_x.0.weight"])


def test_lifted_weights_are_what_the_networks_compute_with() -> None:
    """As of a program written by hand: sample the bias of the decoder, put it in its place, and run."""
    model, values = small_pair("dkf").model, latents(small_pair("dkf"), data(), LENGTHS)
    bias: Any = dict(model.named_parameters())["likelihood.affine.bias"]
    prior = dist.Normal(torch.zeros_like(bias), 1.0).to_event(1)
    lifted = poutine.lift(poutine.condition(model, values), prior={"likelihood.affine.bias": prior})
    trace = traced(lifted, data(), LENGTHS)
    (drawn,) = [s["value"] for s in trace.nodes.values() if s["type"] == "sample" and "bias" in s["name"]]
    with torch.no_grad():
        kept = bias.clone()
        bias.copy_(drawn)
        expected = scored(model, values, data(), LENGTHS, "auto").nodes["x"]["log_prob"]
        bias.copy_(kept)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], expected)
    assert not torch.equal(drawn, kept)


class Held(Messenger):
    """A handler of a user's that the library has never seen: it sets values, anew each time."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]].clone()


class Doubled(Messenger):
    """One that changes what was drawn, when it has been drawn."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"].startswith(("z", "layer", "v", "w", "mu")):
            msg["value"] = 2.0 * msg["value"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_of_any_handler_are_what_the_rest_is_computed_from(variant: str) -> None:
    """`do` and a handler never seen give x the density that `condition` does, in every interpreter."""
    pair = small_pair(variant)
    values = latents(pair, data(), LENGTHS)
    if not values:
        return
    expected = per_sequence(scored(pair.model, values, data(), LENGTHS, "auto"))
    for how in ("auto", "looped", "stepwise") if pair.model.stepwise else ("auto",):
        settled: dict[str, Any] = frame_by_frame(values) if how == "stepwise" else {**values}
        for handler in (poutine.do(pair.model, settled), Held(settled)(pair.model)):
            trace = traced(handler, data(), LENGTHS, how)
            trace.compute_log_prob(lambda name, site: name.startswith("x"))
            got = sum(s["log_prob"].sum(0) for n, s in trace.nodes.items() if n.startswith("x"))
            torch.testing.assert_close(got, expected["x"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("variant", ["vae", "dkf", "vrnn", "rvae", "dsae"])
def test_a_value_changed_afterwards_is_heeded_or_refused(variant: str) -> None:
    model = small_pair(variant).model
    with Doubled():
        trace = traced(model, data(), LENGTHS, "stepwise") if model.stepwise else None
    if trace is not None:
        drawn = {n: s["value"] for n, s in trace.nodes.items() if n[0] in "vz"}
        with Held(drawn):
            again = traced(model, data(), LENGTHS, "stepwise")
        for name in (f"x_{t}" for t in range(7)):
            torch.testing.assert_close(trace.nodes[name]["fn"].mean, again.nodes[name]["fn"].mean)
    with Doubled():
        if variant not in ("vae", "rvae"):  # which do not look back
            with pytest.raises(UserError, match="stepwise"):
                traced(model, data(), LENGTHS)
            return
        at_once = traced(model, data(), LENGTHS)
    with Held({"z": at_once.nodes["z"]["value"]}):
        again = traced(model, data(), LENGTHS)
    assert torch.equal(at_once.nodes["x"]["fn"].mean, again.nodes["x"]["fn"].mean)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_returns_its_data(variant: str) -> None:
    pair = small_pair(variant)
    ways = ("auto", "looped", "stepwise") if pair.model.stepwise else ("auto",)
    for how in ways:
        assert torch.equal(traced(pair.model, data(), LENGTHS, how).nodes["_RETURN"]["value"], data())
        with poutine.trace() as inside:
            returned = pair.model(None, LENGTHS, how)
        nodes: dict[str, Any] = inside.trace.nodes
        made = torch.cat([s["value"] for n, s in nodes.items() if n == "x" or n.startswith("x_")])
        real = (torch.arange(7)[:, None] < LENGTHS)[..., None]
        torch.testing.assert_close(returned, pair.model.scaling.inverse(made) * real)
    with poutine.uncondition():
        assert not torch.equal(pair.model(data(), LENGTHS), data())


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_predictive_returns_data_and_latents(variant: str, parallel: bool) -> None:
    pair = small_pair(variant)
    sites = ("_RETURN", "x", *pair.model.latents)
    drawn = Predictive(pair.model, guide=pair.guide, num_samples=3, parallel=parallel, return_sites=sites)
    if parallel and variant.startswith(("fhvae", "beta_vae")):  # Pyro puts its plate where the guide has no site
        with pytest.raises(UserError, match="dim=-3"):
            drawn(data(), LENGTHS)
    else:
        found = drawn(data(), LENGTHS)
        assert torch.equal(found["_RETURN"].reshape(3, *data().shape), data().expand(3, -1, -1, -1))
        for name in pair.model.latents:
            assert len(torch.unique(found[name].reshape(3, -1)[:, 0])) == (1 if name.startswith("mu") else 3)
    prior = Predictive(pair.model, num_samples=3, parallel=parallel, return_sites=sites)(None, LENGTHS)
    made = pair.model.scaling.inverse(prior["x"].reshape(3, *data().shape))
    real = (torch.arange(7)[:, None] < LENGTHS)[..., None]
    torch.testing.assert_close(prior["_RETURN"].reshape(made.shape), made * real)
    assert len({float(v) for v in prior["_RETURN"].reshape(3, -1)[:, 0]}) == 3
    assert all(prior[name].shape[0] == 3 for name in pair.model.latents)
