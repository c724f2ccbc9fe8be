"""What model and guide both compute is computed once, and changes neither bound nor gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn
from torch.func import functional_call

from inference.objectives.elbo import Objective
from models.core.reuse import computed_once, pure
from models.nn.layers import MLP, Recurrent
from tests.pairs import LENGTHS, VARIANTS, data, small_pair


@pytest.fixture
def calls() -> list[Tensor]:
    """The inputs of `Doubled`."""
    return []


class Doubled(nn.Module):
    def __init__(self, calls: list[Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.calls = calls

    @pure
    def forward(self, u: Tensor, more: Tensor | None = None) -> Tensor:
        self.calls.append(u)
        return self.weight * u


def test_equal_calls_are_computed_once_and_others_anew(calls: list[Tensor]) -> None:
    net, u = Doubled(calls), torch.ones(3, 2, 1)
    with computed_once():
        first = net(u)
        assert net(u) is first and net(u, None) is first and len(calls) == 1
        net(u.clone())  # another tensor
        with torch.no_grad():
            assert not net(u).requires_grad
            net.weight.add_(1.0)
        assert net(u)[0, 0, 0].item() == 3.0  # other weights, in place
        u.mul_(5.0)
        assert net(u)[0, 0, 0].item() == 15.0  # another value, in place
        other = functional_call(net, {"weight": torch.tensor(4.0)}, (u,))
        assert other[0, 0, 0].item() == 20.0  # weights that a handler replaces
        net(u[:1])
        net(u[:1])  # single frames are not kept
    assert len(calls) == 8
    net(u)
    net(u)
    assert len(calls) == 10


def test_weights_of_layers_are_weights_of_the_network() -> None:
    net, u = MLP(3, [2, 2]), torch.ones(3, 2, 3)
    with computed_once():
        first = net(u)
        assert net(u) is first
        with torch.no_grad():
            net.affine[1].bias.add_(1.0)
        assert bool((net(u) > first).all())


def test_networks_with_random_weights_are_computed_each_time(calls: list[Tensor]) -> None:
    net, u = Doubled(calls), torch.ones(3, 2, 1)
    to_pyro_module_(net)
    with computed_once():
        net(u)
        net(u)
    assert len(calls) == 2


SHARING = ("srnn", "vrnn", "z_forcing")
"""Models whose guides run networks of theirs."""


@pytest.mark.parametrize(
    ("variant", "objective"),
    [*((v, "elbo") for v in VARIANTS), *((v, o) for v in SHARING for o in ("analytic", "iwae", "dreg"))],
)
def test_bound_and_gradients_are_those_of_computing_twice(
    variant: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = small_pair(variant)
    particles = 1 if objective in ("elbo", "analytic") else 3
    found = []
    for context in (computed_once, nullcontext):
        for module in ("estimators", "multisample"):
            monkeypatch.setattr(f"inference.objectives.{module}.computed_once", context)
        of = Objective(pair.model, pair.guide, objective, particles)
        of.zero_grad()
        torch.manual_seed(3)
        loss = of(data(), LENGTHS).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in of.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_network_that_srnn_and_its_guide_share_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sequences differ in length: the LSTM over the past once, and that of the guide."""
    pair = small_pair("srnn")
    ran: list[str] = []
    for cls, name in ((Recurrent, "recurrent"), (MLP, "mlp")):
        inner = vars(cls)["forward"].__wrapped__

        def counted(self: Any, *args: Any, name: str = name, inner: Any = inner) -> Any:
            ran.append(name)
            return inner(self, *args)

        monkeypatch.setattr(cls, "forward", pure(counted))
    Objective(pair.model, pair.guide)(data(), LENGTHS)
    assert ran.count("recurrent") == 1
    assert ran.count("mlp") == 4  # x_h, hx_g, hz_z, hz_x; gz_z is in the loop
