"""The fast loop of chain-like guides: against finite differences, and against the step that it stands for."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

from guides.chain import Chain, _Chain
from guides.dkf import DKFGuideSettings
from guides.family import FamilySettings
from guides.guide import GuideSettings
from guides.registry import build_guide
from inference.handlers import given_noise
from models.registry import build_model, model_class
from tests.pairs import BINS, LENGTHS, data, traced

SETTINGS: list[GuideSettings] = [
    DKFGuideSettings(),
    DKFGuideSettings(z_g=[], g_z=[], g_dim=5),
    DKFGuideSettings(bidirectional=True, g_layers=2, g_dim=4, g_z=[3]),
    FamilySettings(name="all-markov", g_dim=4),
    FamilySettings(name="past-markov", z_k=[], g_z=[], g_dim=4),
]


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(0)
    sizes = [
        (4, 2),
        (3, 4),
        (5, 3),
        (4, 5),
    ]  # (out, in): z of 2, injection at the third layer, mean and log-variance of 2
    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in sizes]
    biases = [torch.randn(s[0], dtype=torch.float64, requires_grad=True) for i, s in enumerate(sizes) if i != 2]
    noise = torch.randn(4, 3, 2, dtype=torch.float64)
    injected = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    chain: Any = _Chain.apply
    assert torch.autograd.gradcheck(lambda c, *w: chain(noise, c, 2, *w), (injected, *weights, *biases))


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_it_draws_and_differentiates_as_the_step_does(settings: GuideSettings) -> None:
    torch.manual_seed(1)
    model = build_model(model_class("dkf").Settings(name="dkf", bins=BINS, z_dim=3)).double()
    guide = build_guide(model, "dkf", settings).double()
    noise = torch.randn(2, len(data()), len(LENGTHS), 3, dtype=torch.float64)  # two particles
    found: list[tuple[Tensor, Tensor, list[Tensor]]] = []
    for how in ("auto", "looped"):
        guide.zero_grad()
        with pyro.plate("particles", 2, dim=-3), given_noise({"z": noise}):
            trace = traced(guide, data(), LENGTHS, how)
        z, log_density = trace.nodes["z"]["value"], trace.log_prob_sum()
        (log_density + (z.sin() * trace.nodes["z"]["fn"]._mask[..., None]).sum()).backward()
        found.append((z.detach(), log_density.detach(), [p.grad for p in guide.parameters() if p.grad is not None]))
    fast, slow = found
    torch.testing.assert_close(fast[0], slow[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast[1], slow[1], rtol=1e-12, atol=0)
    assert len(fast[2]) == len(slow[2])
    for a, b in zip(fast[2], slow[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_its_loop_keeps_no_graph() -> None:
    """One node for the whole loop, however many frames."""
    torch.manual_seed(2)
    layers = [nn.Linear(3, 4), nn.Linear(4, 6)]
    injected = torch.randn(50, 2, 4, requires_grad=True)
    chain = Chain(injected, [], layers[0].weight, [layers[1]])
    z, _, _ = chain.run(torch.randn(50, 2, 3))
    seen, frontier = set(), [z.grad_fn]
    while frontier:
        node = frontier.pop()
        if node is not None and node not in seen:
            seen.add(node)
            frontier += [parent for parent, _ in node.next_functions]
    assert len(seen) < 20
