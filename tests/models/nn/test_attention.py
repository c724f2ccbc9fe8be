"""Transformers against one written out frame by frame, and caches against computing all of the past again."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from models.nn.attention import Decoder, Encoder, layers, positions

WIDTH, FRAMES, N = 6, 9, 3


def _random(module: torch.nn.Module) -> None:
    """Weights large enough that everything depends visibly on everything that it may."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)


def _decoder(residual: bool = True, dtype: torch.dtype = torch.float64) -> Decoder:
    torch.manual_seed(0)
    made = layers(2, WIDTH, 10, crossing=True).to(dtype)
    _random(made)
    return Decoder(made, WIDTH, residual=residual)


def _input(*leading: int, frames: int = FRAMES, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*leading, frames, N, 2 * WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype)


def _attention(net: Any, u: Tensor, sources: Tensor) -> Tensor:
    """What u (D,) finds in the sources (S, D), one product after the other."""
    query = net.query.weight @ u + net.query.bias
    keys, values = zip(*((net.key_value.weight @ s + net.key_value.bias).chunk(2) for s in sources), strict=True)
    weights = torch.stack([query @ key / math.sqrt(WIDTH) for key in keys]).softmax(0)
    found: Tensor = net.out.weight @ sum(p * v for p, v in zip(weights, values, strict=True)) + net.out.bias
    return found


def _layers(net: Decoder | Encoder) -> list[Any]:
    return [*net.layers]


def _norm(norm: Any, u: Tensor) -> Tensor:
    scaled: Tensor = (u - u.mean()) / (u.var(correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
    return scaled


def _feed(net: Any, u: Tensor) -> Tensor:
    first, _, last = net
    out: Tensor = last.weight @ (first.weight @ u + first.bias).clamp_min(0.0) + last.bias
    return out


@pytest.mark.parametrize("residual", [True, False])
def test_decoder_is_the_transformer_of_the_paper_written_out(residual: bool) -> None:
    decoder, u = _decoder(residual), _input()
    out, _ = decoder(u)
    told = positions(0, FRAMES, WIDTH, u)
    for n in range(N):
        stream, second = (part + told for part in u[:, n].split(WIDTH, dim=-1))
        for layer in _layers(decoder):
            own, other = layer.attentions
            made = []
            for t in range(FRAMES):
                v = stream[t]
                kept = 1.0 if residual else 0.0
                v = _norm(layer.norms[0], kept * v + _attention(own, v, stream[: t + 1]))
                v = _norm(layer.norms[1], kept * v + _attention(other, v, second[: t + 1]))
                made.append(_norm(layer.norms[2], kept * v + _feed(layer.feed, v)))
            stream = torch.stack(made)
        torch.testing.assert_close(out[:, n], stream, rtol=1e-10, atol=1e-10)


def test_encoder_sees_all_of_its_own_sequence_and_nothing_else() -> None:
    torch.manual_seed(0)
    encoder = Encoder(4, WIDTH, 10, 1).double()
    _random(encoder)
    u, lengths = torch.randn(5, 2, 4, dtype=torch.float64), torch.tensor([5, 3])
    out = encoder(u, lengths)
    (layer,) = _layers(encoder)
    for n, length in enumerate(lengths.tolist()):
        stream = u[:length, n] @ encoder.embedding.weight.T + encoder.embedding.bias + positions(0, length, WIDTH, u)
        for t in range(length):
            v = _norm(layer.norms[0], stream[t] + _attention(layer.attentions[0], stream[t], stream))
            v = _norm(layer.norms[1], v + _feed(layer.feed, v))
            torch.testing.assert_close(out[t, n], v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("pieces", [[1] * 40, [7, 1, 20, 1, 11]])
def test_caches_equal_computing_all_of_the_past_again(
    dtype: torch.dtype, bound: float, grad: bool, pieces: list[int]
) -> None:
    decoder, u = _decoder(dtype=dtype), _input(2, frames=40, dtype=dtype)
    with torch.set_grad_enabled(grad):
        whole, at_end = decoder(u)
        state, made = None, []
        for piece in u.split(pieces, dim=-3):
            out, state = decoder(piece, state)
            made.append(out)
    torch.testing.assert_close(torch.cat(made, dim=-3), whole, rtol=bound, atol=bound)
    assert state is not None and all(s.shape == (2, N, 40, 2 * WIDTH) for s in state)
    for one, other in zip(state, at_end, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)


def test_gradients_through_caches_are_those_of_one_pass() -> None:
    decoder, u = _decoder(), _input()
    weights = torch.linspace(0.5, 2.0, FRAMES, dtype=torch.float64)[:, None, None]

    def gradients(pieces: list[Tensor]) -> list[Tensor]:
        state, total = None, torch.zeros((), dtype=torch.float64)
        for piece, weight in zip(pieces, weights.split([len(p) for p in pieces]), strict=True):
            out, state = decoder(piece, state)
            total = total + (weight * out.square()).sum()
        return list(torch.autograd.grad(total, list(decoder.layers.parameters())))

    for one, other in zip(gradients([u]), gradients(list(u.split(1))), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_state_that_two_go_on_from_serves_both() -> None:
    """Caches grow in place, so the second to go on from a state must not find what the first wrote."""
    decoder, u = _decoder(), _input()
    other = u.clone()
    other[6:] = -u[6:]
    state: tuple[Tensor, ...] | None = None
    for t in range(6):  # the buffers have spare capacity
        _, state = decoder(u[t : t + 1], state)
    states, made = [state, state], (list[Tensor](), list[Tensor]())
    for t in range(6, FRAMES):
        for way, branch in enumerate((u, other)):
            out, states[way] = decoder(branch[t : t + 1], states[way])
            made[way].append(out)
    for way, branch in enumerate((u, other)):
        torch.testing.assert_close(torch.cat(made[way]), decoder(branch)[0][6:], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_states_can_be_selected_by_ancestors_and_broadcast_over_particles() -> None:
    decoder, u = _decoder(), _input(5)
    ancestors = torch.tensor([3, 3, 0, 4, 1])
    _, state = decoder(u[:, :4])
    _, state = decoder(u[:, 4:5], state)
    chosen = tuple(s[ancestors] for s in state)
    expected, _ = decoder(torch.cat([u[ancestors, :5], u[:, 5:]], dim=1))
    for t in range(5, FRAMES):
        out, chosen = decoder(u[:, t : t + 1], chosen)
        torch.testing.assert_close(out, expected[:, t : t + 1], rtol=1e-10, atol=1e-10)
    _, state = decoder(u[0, :4])  # without particles
    out, state = decoder(u[:, 4:5], state)  # with
    past = u[:1, :4].expand(5, -1, -1, -1)
    torch.testing.assert_close(out, decoder(torch.cat([past, u[:, 4:5]], dim=1))[0][:, 4:5], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_caches_are_not_copied_every_frame() -> None:
    """Of 300 frames, those that meet full buffers copy; the others append in place."""
    decoder, u = _decoder(), _input(frames=300)
    state: tuple[Tensor, ...] | None = None
    places = set()
    for t in range(300):
        _, state = decoder(u[t : t + 1], state)
        places.add(state[0].data_ptr())
    assert len(places) <= 10


def test_positions_are_the_sinusoids_at_any_frame() -> None:
    told = positions(10_000, 10_002, 4, torch.zeros((), dtype=torch.float64))
    for row, t in zip(told, (10_000, 10_001), strict=True):
        expected = [math.sin(t), math.sin(t / 100), math.cos(t), math.cos(t / 100)]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def test_dropout_is_drawn_in_training_alone() -> None:
    torch.manual_seed(0)
    made = layers(1, WIDTH, 10, crossing=True, dropout=0.5).double()
    decoder, u = Decoder(made, WIDTH), _input()
    assert not torch.equal(decoder(u)[0], decoder(u)[0])
    made.eval()
    assert torch.equal(decoder(u)[0], decoder(u)[0])


@pytest.mark.parametrize(
    ("width", "dropout", "message"),
    [(7, 0.0, "d_model=7"), (8, 1.0, r"dropout=1\.0")],
)
def test_impossible_sizes_are_refused(width: int, dropout: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        layers(1, width, 10, crossing=True, dropout=dropout)
