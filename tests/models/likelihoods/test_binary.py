"""Binary data: models with a Bernoulli over each value keep the contract, and all of them train on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inference.handlers.free_running import free_running
from inference.objectives.elbo import Objective
from models.registry import build_model, model_class
from tests import pairs
from tests.models import test_contract as contract
from tests.support.contract import CLAUSES, keep

LENGTHS = pairs.LENGTHS
MORE = {"likelihood": "bernoulli", "input": "raw"}


SPECTRA = pairs.data


def binary(lengths: Tensor = LENGTHS) -> Tensor:
    """Zeros and ones (T, N, D), zero beyond each length, half of each."""
    x = SPECTRA(lengths)
    return (x > 0.7).to(x)


@pytest.fixture
def binary_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small pairs of the contract, with a Bernoulli likelihood and binary data."""
    for name, (model, more) in list(pairs.VARIANTS.items()):
        monkeypatch.setitem(pairs.VARIANTS, name, (model, {**more, **MORE}))
    for module in (pairs, contract):
        monkeypatch.setattr(module, "data", binary)


@pytest.mark.usefixtures("binary_pairs")
@pytest.mark.parametrize("owed", CLAUSES)
@pytest.mark.parametrize(("model", "guide"), [("dkf", "paper"), ("srnn", "future-markov"), ("vrnn", "paper")])
def test_the_contract_holds_for_binary_data(model: str, guide: str, owed: str) -> None:
    keep(owed, model, guide)


@pytest.mark.usefixtures("binary_pairs")
@pytest.mark.parametrize("variant", pairs.VARIANTS)
def test_every_guide_of_every_model_has_gradients_on_ragged_binary_data(variant: str) -> None:
    for guide in [guide for name, guide in pairs.PAIRS if name == variant]:
        pair = pairs.small_pair(variant, guide)
        bound = Objective(pair.model, pair.guide)(binary(), LENGTHS)
        bound.loss.backward()
        named = pairs.parameters(pair)
        without = [n for n, p in named.items() if p.grad is None or not bool(p.grad.abs().max() > 0)]
        assert without == [] and all(bool(torch.isfinite(p.grad).all()) for p in named.values() if p.grad is not None)
        assert bool((bound.terms.reconstruction < 0).all()), "log-probabilities of values that are counted"


@pytest.mark.parametrize("name", ["vrnn", "srnn", "storn"])
def test_what_is_generated_is_0_and_1_and_free_running_feeds_means(name: str) -> None:
    torch.manual_seed(1)
    model = build_model(
        model_class(name).Settings(name=name, bins=6, z_dim=3, input="raw", likelihood="bernoulli")
    ).double()
    fed: list[Tensor] = []
    model.input.register_forward_hook(lambda module, given, out: fed.append(out.detach()))
    for running in (False, True):
        fed.clear()
        trace = pairs.traced(free_running()(model) if running else model, None, torch.tensor([5, 3]))
        x = trace.nodes["x"]["value"]
        assert set(x.unique().tolist()) == {0.0, 1.0}
        past = torch.cat(fed)
        assert bool(((past > 0) & (past < 1)).any()) == running


def test_training_starts_from_the_marginals_of_the_data() -> None:
    """Where features say nothing, the decoder's first guess is the share of ones, half a one and half a zero added."""
    torch.manual_seed(0)
    rolls = [(torch.rand(length, 5) < torch.tensor([0.01, 0.1, 0.5, 0.9, 1.0])).double() for length in (30, 7, 63)]
    model = build_model(model_class("vae").Settings(name="vae", bins=5, input="raw", likelihood="bernoulli")).double()
    model.fit_input(rolls)
    ones = torch.cat(rolls).sum(0)
    share = (ones + 0.5) / (100 + 1.0)
    likelihood: Any = model.likelihood
    torch.testing.assert_close(likelihood(torch.zeros(256).double()).mean, share)
