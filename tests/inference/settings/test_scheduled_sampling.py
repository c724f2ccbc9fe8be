"""Scheduled sampling against loops by hand over each model's own conditionals, and against what it becomes at the ends.

A loop is given what x_{t-1} is to be (`Past`), and gives for every frame the prior of z and the distribution of x.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from inference.handlers.free_running import free_running
from inference.handlers.scheduled_sampling import scheduled_sampling
from inference.objectives.elbo import Objective
from tests.pairs import LENGTHS, Pair, data, frame_by_frame, latents, parameters, small_pair, traced

MODELS = ["storn", "vrnn", "srnn"]
X, FRAMES, N = data(), int(LENGTHS.max()), len(LENGTHS)
State = tuple[Tensor, Tensor]
Past = Callable[[int, Tensor], Tensor]  # frame, the model's own output one frame earlier -> x_{t-1}
Frames = list[tuple[Any, Any]]  # p(z_t), p(x_t)


def _cell(net: nn.LSTM) -> nn.LSTMCell:
    cell = nn.LSTMCell(net.input_size, net.hidden_size).double()
    for name, parameter in net.named_parameters():
        setattr(cell, name.removesuffix("_l0"), parameter)  # the very same, for gradients
    return cell


def _rest(width: int) -> State:
    return torch.zeros(N, width).double(), torch.zeros(N, width).double()


def _storn(m: Any, z: Tensor, past: Past) -> Frames:
    cell, state, own, out = _cell(m.h.net), _rest(m.h.out_dim), torch.zeros_like(X[0]), []
    for t in range(FRAMES):
        x_before = past(t, own)
        state = cell(torch.cat([m.z_h(z[t]), m.x_h(m.input(x_before))], -1), state)
        out.append((m.prior(), m.decoder(state[0])))
        own = out[-1][1].mean
    return out


def _vrnn(m: Any, z: Tensor, past: Past) -> Frames:
    cell, state, own, out = _cell(m.h.net), _rest(m.h.out_dim), torch.zeros_like(X[0]), []
    for t in range(FRAMES):
        x_before = past(t, own)
        if t > 0:
            state = cell(torch.cat([m.x(m.input(x_before)), m.z(z[t - 1])], -1), state)
        out.append((m.prior(state[0]), m.decoder(m.z(z[t]), state[0])))
        own = out[-1][1].mean
    return out


def _srnn(m: Any, z: Tensor, past: Past) -> Frames:
    cell, state, own, out = _cell(m.h.net), _rest(m.h.out_dim), torch.zeros_like(X[0]), []
    for t in range(FRAMES):
        x_before = past(t, own)
        state = cell(m.x_h(m.input(x_before)), state)
        z_before = z[t - 1] if t > 0 else torch.zeros_like(z[0])
        out.append((m.prior(state[0], z_before), m.decoder(state[0], z[t])))
        own = out[-1][1].mean
    return out


LOOPS: dict[str, Callable[[Any, Tensor, Past], Frames]] = {"storn": _storn, "vrnn": _vrnn, "srnn": _srnn}


def _true(t: int) -> Tensor:
    return X[t - 1] if t > 0 else torch.zeros_like(X[0])


def _coins(p: float, coin: str, seed: int = 4) -> Tensor:
    torch.manual_seed(seed)
    return torch.rand(FRAMES, N if coin == "sequence" else 1, 1) < p


def _run(pair: Pair, z: Tensor, handler: Any, how: str = "auto", seed: int = 4) -> Frames:
    """What the model gives under a handler: the conditionals of every frame."""
    settled = frame_by_frame({"z": z}) if how == "stepwise" else {"z": z}
    torch.manual_seed(seed)
    with handler:
        trace = traced(poutine.condition(pair.model, settled), X, LENGTHS, how)
    if how == "stepwise":
        return [(trace.nodes[f"z_{t}"]["fn"], trace.nodes[f"x_{t}"]["fn"]) for t in range(FRAMES)]
    return [(trace.nodes["z"]["fn"], trace.nodes["x"]["fn"])]


def _means(frames: Frames) -> tuple[Tensor, Tensor]:
    """Means of x and z, (T, N, D) and (T, N, L)."""
    z, x = zip(*frames, strict=True)
    expanded = [p.mean.expand(*p.mean.shape[:-2], N, -1) if p.mean.dim() > 1 else p.mean.expand(N, -1) for p in z]
    return torch.cat([_framed(p.mean) for p in x]), torch.cat([_framed(mean) for mean in expanded])


def _framed(mean: Tensor) -> Tensor:
    return mean[None] if mean.dim() == 2 else mean


def _setting(name: str) -> tuple[Pair, Tensor]:
    pair = small_pair(name)
    return pair, latents(pair, X, LENGTHS)["z"]


def _agree(got: Frames, expected: Frames) -> None:
    for ours, theirs in zip(_means(got), _means(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("coin", ["sequence", "batch"])
@pytest.mark.parametrize("how", ["auto", "stepwise"])
def test_x_itself_is_mixed(name: str, coin: str, how: str) -> None:
    pair, z = _setting(name)
    coins = _coins(0.5, coin)
    assert bool(coins[1:].any()) and not bool(coins[1:].all())
    expected = LOOPS[name](pair.model, z, lambda t, own: torch.where(coins[t], own, _true(t)))
    _agree(_run(pair, z, scheduled_sampling(0.5, coin=coin), how), expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("how", ["auto", "stepwise"])
def test_the_published_scheme_mixes_states(name: str, p: float, how: str) -> None:
    """Two loops side by side: one on the data, one on the output; x from either, the prior from the second."""
    pair, z = _setting(name)
    coins = _coins(p, "batch")
    teacher = LOOPS[name](pair.model, z, lambda t, own: _true(t))
    outputs: list[Tensor] = []

    def past(t: int, own: Tensor) -> Tensor:
        if t == 0:
            return torch.zeros_like(X[0])
        outputs.append(torch.where(coins[t - 1], own, teacher[t - 1][1].mean))  # exp(o_{t-1}), o from u_{t-1}
        return outputs[-1]

    generated = LOOPS[name](pair.model, z, past)
    expected = [(g[0], g[1] if bool(coins[t]) else teacher[t][1]) for t, g in enumerate(generated)]
    _agree(_run(pair, z, scheduled_sampling(p, mix="h", coin="batch"), how), expected)


@pytest.mark.parametrize("name", MODELS)
def test_both_ends_are_teacher_forcing_and_generation_bit_for_bit(name: str) -> None:
    pair = small_pair(name)
    objective = Objective(pair.model, pair.guide)
    values = list(parameters(pair).values())

    def run(*handlers: Any) -> list[Tensor]:
        torch.manual_seed(0)
        with ExitStack() as stack:
            for handler in handlers:
                stack.enter_context(handler)
            bound = objective(X, LENGTHS)
        grads = torch.autograd.grad(bound.loss, values)
        return [bound.loss.detach(), bound.terms.elbo, torch.get_rng_state(), *grads]

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    teacher, generation = run(), run(free_running())
    assert same(run(scheduled_sampling(0.0)), teacher)
    for mix in ("x", "h"):
        assert same(run(scheduled_sampling(1.0, mix=mix)), generation)
    assert not torch.equal(teacher[0], generation[0])
    seeded = scheduled_sampling(0.5)
    assert same(run(seeded), run(seeded)) and not same(run(seeded), teacher)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mix", ["x", "h"])
def test_no_gradient_flows_back_through_the_output(name: str, mix: str) -> None:
    """The gradient is that of the same numbers with the past held fixed: by hand, with what the run fed back."""
    pair, z = _setting(name)
    named = [p for p in pair.model.parameters() if p.requires_grad]
    fed: dict[int, Tensor] = {}

    class Listen(Messenger):
        def _pyro_post_prev(self, msg: Any) -> None:
            if msg["args"][0] == "x" and type(msg["args"][2]).__name__ in ("Looped", "Parallel"):
                axis = msg["args"][2]
                for k, t in enumerate(range(axis.start, axis.stop)):
                    fed[t] = msg["value"][k]

    handler = scheduled_sampling(0.5, mix=mix)
    torch.manual_seed(4)
    with Listen(), handler:
        trace = traced(poutine.condition(pair.model, {"z": z}), X, LENGTHS)
    assert not any(value.requires_grad for value in fed.values())
    x = trace.nodes["x"]["fn"].mean.log()
    weights = torch.linspace(-1.0, 1.0, x.numel(), dtype=torch.float64).reshape(x.shape)
    got = torch.autograd.grad((weights * x).sum(), named, allow_unused=True)
    by_hand = LOOPS[name](pair.model, z, lambda t, own: fed[t])
    mixed = torch.stack([p.mean.log() for _, p in by_hand])
    if mix == "h":
        teacher = LOOPS[name](pair.model, z, lambda t, own: _true(t))
        teacher_forced = torch.stack([p.mean.log() for _, p in teacher])
        mixed = torch.where(_coins(0.5, "sequence"), mixed, teacher_forced)
    expected = torch.autograd.grad((weights * mixed).sum(), named, allow_unused=True)
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_generation_can_keep_its_gradient() -> None:
    pair, z = _setting("srnn")
    bias = pair.model.likelihood.affine.bias  # type: ignore[union-attr]  # attributes of a Module
    grads = []
    for stop in (True, False):
        frames = _run(pair, z, free_running(stop_gradient=stop))
        grads.append(torch.autograd.grad(frames[0][1].mean[-1].log().sum(), bias)[0])  # type: ignore[arg-type]  # attributes of a Module
    ones = torch.full_like(grads[0], float(N))
    torch.testing.assert_close(grads[0], ones)  # of the last frame's own output alone
    assert not torch.allclose(grads[1], ones)


def test_particles_share_their_coins() -> None:
    import pyro

    pair = small_pair("srnn")
    coins = _coins(0.5, "sequence")
    torch.manual_seed(3)
    with pyro.plate("particles", 5, dim=-3):
        guide_trace = traced(pair.guide, X, LENGTHS)
        torch.manual_seed(4)
        with scheduled_sampling(0.5):
            trace = traced(poutine.replay(pair.model, guide_trace), X, LENGTHS)
    z = guide_trace.nodes["z"]["value"]
    assert trace.nodes["x"]["fn"].mean.shape == (5, *X.shape)
    for k in (0, 4):
        one = _run(pair, z[k].detach(), scheduled_sampling(0.5))
        torch.testing.assert_close(trace.nodes["x"]["fn"].mean[k], _means(one)[0])
    assert bool(coins.any())


def test_what_cannot_be_is_refused() -> None:
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"p = {p}"):
            scheduled_sampling(p)
    for wrong in ({"mix": "z"}, {"coin": "word"}):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong.values()))}'"):
            scheduled_sampling(0.5, **wrong)
    pair = small_pair("srnn")
    with pytest.raises(ValueError, match="'z'"), scheduled_sampling(0.5, mix="h"):
        traced(pair.model, X, LENGTHS)


def test_models_that_never_look_back_do_not_notice() -> None:
    pair = small_pair("dkf")
    z = latents(pair, X, LENGTHS)["z"]
    for handler in (free_running(), scheduled_sampling(0.5), scheduled_sampling(0.5, mix="h")):
        got = _run(pair, z, handler)
        assert torch.equal(got[0][1].mean, _run(pair, z, nullcontext())[0][1].mean)
