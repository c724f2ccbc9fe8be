"""The cost of Z-Forcing: its closed form, its gradient and where that stops, and that without it nothing changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from guides.registry import build_guide
from guides.z_forcing import ZForcingGuideSettings
from inference.handlers.auxiliary_cost import auxiliary_cost
from inference.handlers.given_noise import given_noise
from inference.objectives.elbo import Objective
from tests.pairs import LENGTHS, Pair, data, noise, small_pair, traced
from tests.support.trainings import lines, train

ALPHA = 0.3


@pytest.fixture
def pair() -> Pair:
    plain = small_pair("z_forcing")
    torch.manual_seed(3)
    settings = ZForcingGuideSettings(auxiliary=ALPHA)
    return Pair(plain.model, build_guide(plain.model, plain.model_settings, settings).double(), plain[2], settings)


def _cost(pair: Pair, *, detached: bool = True) -> Tensor:
    """The cost by its formula, from one sequence after the other, an LSTM cell stepping backwards."""
    guide: Any = pair.guide
    with given_noise(noise(pair)):
        z = traced(guide, data(), LENGTHS).nodes["z"]["value"]
    lstm, total = guide.b.net, torch.zeros((), dtype=torch.float64)
    for n, length in enumerate(LENGTHS.tolist()):
        h = c = torch.zeros(guide.b.out_dim, dtype=torch.float64)
        for t in reversed(range(length)):
            u = guide.x_h(guide.input(data()[t, n]))
            gates = lstm.weight_ih_l0 @ u + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
            i, f, g, o = gates.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            b = h.detach() if detached else h
            m, log_variance = guide.b_head(guide.z_b(z[t, n])).chunk(2)
            s = log_variance.clamp(-8.0, 8.0)
            error = (b - m.tanh()).square() / s.exp()
            total = total - 0.5 * (error + s + math.log(2.0 * math.pi)).sum()
    return total


@pytest.mark.parametrize("name", ["elbo", "analytic"])
@pytest.mark.parametrize("how", ["auto", "looped"])
def test_it_is_its_formula_and_so_is_its_gradient(pair: Pair, name: str, how: str) -> None:
    objective = Objective(pair.model, pair.guide, name)
    weights = [p for p in objective.parameters() if p.requires_grad]
    with given_noise(noise(pair)):
        plain = objective(data(), LENGTHS, how=how)
    cost = _cost(pair)
    expected = torch.autograd.grad(plain.loss - ALPHA * cost, weights, allow_unused=True)
    with given_noise(noise(pair)), auxiliary_cost(ALPHA):
        bound = objective(data(), LENGTHS, how=how)
    torch.testing.assert_close(bound.loss, plain.loss - ALPHA * cost)
    torch.testing.assert_close(bound.factors["auxiliary"].sum(), cost.detach())
    torch.testing.assert_close(bound.terms.elbo, plain.terms.elbo)
    for got, wanted in zip(torch.autograd.grad(bound.loss, weights), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_backward_network_is_not_made_easy_to_tell(pair: Pair) -> None:
    """It gets the gradient that comes through z alone: another one than if b itself had it."""
    weights = list(pair.guide.b.parameters())  # type: ignore[union-attr]  # attributes of a Module
    stopped, free = (torch.autograd.grad(_cost(pair, detached=stop), weights) for stop in (True, False))
    assert all(bool(g.abs().max() > 0) for g in stopped)
    assert not any(torch.allclose(a, b) for a, b in zip(stopped, free, strict=True))


@pytest.mark.parametrize("handler", [auxiliary_cost(0.0), auxiliary_cost(1.0)])
def test_without_a_weight_or_a_guide_that_asks_it_is_the_plain_objective(handler: auxiliary_cost, pair: Pair) -> None:
    chosen = pair if handler.weight == 0.0 else small_pair("dkf")
    objective = Objective(chosen.model, chosen.guide)
    losses = []
    for around in (handler, auxiliary_cost(0.0)):
        with given_noise(noise(chosen)), around:
            losses.append(objective(data(), LENGTHS))
    with given_noise(noise(chosen)):
        losses.append(objective(data(), LENGTHS))
    assert all(torch.equal(bound.loss, losses[-1].loss) and not bound.factors for bound in losses)


def test_a_guide_without_the_cost_has_no_network_for_it(pair: Pair) -> None:
    plain = {name for name, _ in small_pair("z_forcing").guide.named_parameters()}
    assert {name.split(".")[0] for name, _ in pair.guide.named_parameters() if name not in plain} == {"z_b", "b_head"}


def test_it_needs_all_frames_of_the_latent(pair: Pair) -> None:
    with pytest.raises(ValueError, match="how='auto' or 'looped'"), auxiliary_cost(ALPHA):
        Objective(pair.model, pair.guide)(data(), LENGTHS, how="stepwise")


def test_what_has_no_place_for_it_is_refused(pair: Pair) -> None:
    with pytest.raises(UserError, match=r"guide.auxiliary.* Use train.objective=elbo"):
        Objective(pair.model, pair.guide, "iwae", 2)
    with pytest.raises(UserError, match="guide.auxiliary=-1.0"):
        build_guide(pair.model, pair.model_settings, ZForcingGuideSettings(auxiliary=-1.0))
    with pytest.raises(ValueError, match=r"weight = -1\.0"):
        auxiliary_cost(-1.0)


def test_training_adds_it_and_logs_it_beside_the_bound(tmp_path: Path, tiny: list[str]) -> None:
    more = (f"guide.auxiliary={ALPHA}", "train.objective=analytic", "train.steps=2", "train.kl_warmup_steps=0")
    found = lines(train(tmp_path / "run", tiny, *more, model="z_forcing"))
    trained = [line for line in found if line["split"] == "train"]
    for line in trained:
        assert line["loss"] == pytest.approx(-line["elbo"] - ALPHA * line["auxiliary"], rel=1e-5)
    assert all("auxiliary" not in line for line in found if line["split"] == "valid")
