"""The fast loop of chain-like guides: against finite differences, and against the step that it stands for."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from guides.core.chain import Chain, MemoryChain, _ChainLoop, _MemoryLoop
from guides.core.family import FamilySettings
from guides.core.guide import GuideSettings
from guides.dkf import DKFGuideSettings
from guides.registry import build_guide
from guides.srnn import SRNNGuideSettings
from guides.vrnn import VRNNGuideSettings
from inference.handlers.given_noise import given_noise
from models.registry import build_model, model_class
from tests.pairs import BINS, LENGTHS, data, traced

CASES: list[tuple[str, GuideSettings]] = [
    ("dkf", DKFGuideSettings()),
    ("dkf", DKFGuideSettings(z_g=[], g_z=[], g_dim=5)),
    ("dkf", DKFGuideSettings(bidirectional=True, g_layers=2, g_dim=4, g_z=[3])),
    ("dkf", FamilySettings(name="all-markov", g_dim=4)),
    ("dkf", FamilySettings(name="past-markov", z_k=[], g_z=[], g_dim=4)),
    ("rvae", FamilySettings(k_dim=5)),
    ("rvae", FamilySettings(z_k=[], g_z=[], k_dim=4)),
    ("dsae", FamilySettings(name="future-memory", k_dim=4)),
    ("srnn", SRNNGuideSettings()),
    ("srnn", SRNNGuideSettings(gz_z=[])),
    ("vrnn", VRNNGuideSettings()),
    ("vrnn", VRNNGuideSettings(xh_z=[])),
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
    chain: Any = _ChainLoop.apply
    assert torch.autograd.gradcheck(lambda c, *w: chain(noise, c, 2, *w), (injected, *weights, *biases))


@pytest.mark.parametrize("lag", [False, True])
@pytest.mark.parametrize("ahead", [0, 2])
def test_gradients_with_a_memory_against_finite_differences(lag: bool, ahead: int) -> None:
    torch.manual_seed(0)
    before = [(3, 2), (4, 3)][:ahead]  # (out, in): z of 2, an LSTM of 3, then layers of 5 and 4 = 2 x 2
    last = [(5, 3), (4, 5)]
    ways_in = before[-1][0] if before else 2
    weights = [
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(12, ways_in), (12, 3), *before, *last]
    ]
    biases = [torch.randn(s[0], dtype=torch.float64, requires_grad=True) for s in [*before, last[1]]]
    noise = torch.randn(4, 3, 2, dtype=torch.float64)
    gates = torch.randn(4, 3, 12, dtype=torch.float64, requires_grad=True)
    injected = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    loop: Any = _MemoryLoop.apply
    inputs = (gates, injected, *weights, *biases)
    assert torch.autograd.gradcheck(lambda a, c, *w: loop(noise, a, c, ahead, lag, *w), inputs)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=repr)
def test_it_draws_and_differentiates_as_the_step_does(name: str, settings: GuideSettings) -> None:
    torch.manual_seed(1)
    model = build_model(model_class(name).Settings(name=name, bins=BINS, z_dim=3)).double()
    guide = build_guide(model, name, settings).double()
    noise = torch.randn(2, len(data()), len(LENGTHS), 3, dtype=torch.float64)  # two particles
    draws = {"z": noise, "v": torch.randn(2, 1, len(LENGTHS), 16, dtype=torch.float64)}
    found: list[tuple[Tensor, Tensor, list[Tensor]]] = []
    for how in ("auto", "looped"):
        guide.zero_grad()
        with pyro.plate("particles", 2, dim=-3), given_noise(draws):
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


class Kernels(TorchDispatchMode):
    """Counts operations that compute something: on a GPU each is a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.count = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not call.is_view and call._schema.name not in ("aten::detach", "aten::_unsafe_view")
        return call(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("layers", "memory", "expected"), [((4, 5, 6), False, (13, 12)), ((), False, (7, 6)), ((4, 5), True, (19, 15))]
)
def test_a_frame_costs_few_kernels(layers: tuple[int, ...], memory: bool, expected: tuple[int, int]) -> None:
    """The loops of the guides of DKF, SRNN and VRNN: products, tanh, and three operations for draw and adjoint."""

    def kernels(frames: int) -> tuple[int, int]:
        noise, injected = torch.randn(frames, 2, 3), torch.randn(frames, 2, 7, requires_grad=True)
        into = [nn.Linear(a, b) for a, b in zip((3, *layers), layers, strict=False)]
        onward = [nn.Linear(7, 8), nn.Linear(8, 6)]
        width = (3, *layers)[-1]
        if memory:
            gates, of_z, of_h = torch.randn(frames, 2, 16), torch.randn(16, width), torch.randn(16, 4)
            chain: Chain | MemoryChain = MemoryChain(
                gates, into, of_z, of_h, injected, torch.randn(7, 4), onward, lag=True
            )
        else:
            chain = Chain(injected, into, torch.randn(7, width), onward)
        with Kernels() as forward:
            outputs = chain.run(noise)
        gradients = [torch.randn_like(v) for v in outputs]
        with Kernels() as backward:
            torch.autograd.backward(outputs, gradients)
        return forward.count, backward.count

    few, more = kernels(4), kernels(5)
    assert (more[0] - few[0], more[1] - few[1]) == expected
