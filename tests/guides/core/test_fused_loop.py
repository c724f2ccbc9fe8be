"""One kernel for all frames of a chain, in Triton's interpreter, against the loop over frames."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guides.core import fused_loop, fused_memory
from guides.core.chain import Chain, MemoryChain

REASON = "needs the package triton: pip install -e '.[triton]'"


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton's interpreter, which is chosen when kernels are defined."""
    pytest.importorskip("triton", reason=REASON)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    forget_kernels()
    monkeypatch.setattr(fused_loop, "_failed", [])
    yield
    forget_kernels()


def forget_kernels() -> None:
    for name in ("kernels", "memory_kernels"):
        sys.modules.pop(f"guides.core.{name}", None)


def outcome(frames: int, sequences: int, before: list[int], after: list[int], lag: bool | None = None) -> list[Tensor]:
    """Draws, parameters and gradients of a chain with layers of these widths, with an LSTM of 5 if `lag` is given."""
    torch.manual_seed(0)
    latent, width = 3, after[0]
    sizes = [latent, *before]
    into = [nn.Linear(a, b) for a, b in zip(sizes, before, strict=False)]
    onward = [nn.Linear(a, b) for a, b in zip(after, after[1:], strict=False)]
    injected, noise = torch.randn(frames, sequences, width, requires_grad=True), torch.randn(frames, sequences, latent)
    if lag is None:
        weights = [(torch.randn(width, sizes[-1]) / 2).requires_grad_()]
        chain: Chain | MemoryChain = Chain(injected, into, weights[0], onward)
    else:
        shapes = [(20, sizes[-1]), (20, 5), (width, 5), (frames, sequences, 20)]
        weights = [(torch.randn(shape) / 2).requires_grad_() for shape in shapes]
        of_z, of_h, weight, gates = weights
        chain = MemoryChain(gates, into, of_z, of_h, injected, weight, onward, lag)
    z, mean, log_variance = chain.run(noise)
    (z.sin().sum() + mean.square().sum() + (0.3 * log_variance).exp().sum()).backward()
    leaves = [injected, *weights, *(p for layer in (*into, *onward) for p in layer.parameters())]
    assert all(leaf.grad is not None for leaf in leaves)
    return [z, mean, log_variance, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


CASES: list[tuple[int, int, list[int], list[int], bool | None]] = [
    *[(4, 3, [4, 18], [20, 6], None), (3, 18, [], [7, 5, 6], None), (3, 2, [5], [6], None), (2, 1, [], [6], None)],
    *[(3, 18, [4, 7], [20, 6], True), (3, 2, [17], [6], False), (3, 2, [], [7, 5, 6], True), (2, 1, [], [6], False)],
]
"""Among them more sequences than a program takes, layers of more than one chunk, and an injection at the last layer."""


@pytest.mark.parametrize(("frames", "sequences", "before", "after", "lag"), CASES)
def test_it_is_the_loop(
    frames: int,
    sequences: int,
    before: list[int],
    after: list[int],
    lag: bool | None,
    interpreted: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched, module = [], fused_loop if lag is None else fused_memory
    inner = module._adjoint

    def launch(*args: Any) -> None:
        launched.append(args)
        inner(*args)

    monkeypatch.setattr(module, "_adjoint", launch)
    fused = outcome(frames, sequences, before, after, lag)
    assert launched
    monkeypatch.setenv("DVAE_FUSED_LOOP", "0")
    looped = outcome(frames, sequences, before, after, lag)
    assert len(launched) == 1  # the switch
    for one, other in zip(fused, looped, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize(("frames", "sequences", "before", "after", "lag"), CASES)
def test_it_is_the_loop_on_a_gpu(
    frames: int, sequences: int, before: list[int], after: list[int], lag: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason=REASON)
    found = []
    for switch in ("1", "0"):
        monkeypatch.setenv("DVAE_FUSED_LOOP", switch)
        with torch.device("cuda"):
            assert fused_loop.applies(torch.empty(0), []) is (switch == "1")
            found.append(outcome(frames, sequences, before, after, lag))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_without_triton_a_warning_and_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(fused_loop, "_failed", [])
    fused_loop._installed.cache_clear()
    with pytest.warns(UserWarning, match="GPU.*triton"):
        found = outcome(3, 2, [4], [5, 6])
    again = outcome(3, 2, [4], [5, 6])  # says so once
    fused_loop._installed.cache_clear()
    monkeypatch.delenv("TRITON_INTERPRET")
    for one, other, third in zip(found, outcome(3, 2, [4], [5, 6]), again, strict=True):
        assert torch.equal(one, other) and torch.equal(one, third)


@pytest.mark.parametrize("broken", ["_forward", "_adjoint"])
@pytest.mark.parametrize("lag", [None, True])
def test_a_kernel_that_fails_is_not_tried_again(
    broken: str, lag: bool | None, interpreted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(fused_loop if lag is None else fused_memory, broken, fail)
    with pytest.warns(UserWarning, match="GPU.*RuntimeError: out of resources"):
        found = outcome(3, 2, [4], [5, 6], lag)
    monkeypatch.undo()
    for one, other in zip(found, outcome(3, 2, [4], [5, 6], lag), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
