"""The shared networks against PyTorch's own, by hand and within each length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dvae_pyro.errors import UserError
from models.core.tensors import concatenate, reverse, shift
from models.nn.inputs import LOG_FLOOR, InputTransform
from models.nn.layers import MLP, Context, GaussianHead, Recurrent
from tests.cudnn import CuDNN

LENGTHS = torch.tensor([5, 2, 3])


def test_mlp_has_an_activation_after_every_layer_and_none_is_the_identity() -> None:
    mlp = MLP(3, [4, 2])
    x = torch.randn(6, 3)
    first, second = mlp.affine
    hidden = torch.tanh(x @ first.weight.T + first.bias)
    torch.testing.assert_close(mlp(x), torch.tanh(hidden @ second.weight.T + second.bias))
    relu = MLP(3, [4, 2], nn.ReLU)
    expected = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
    expected.load_state_dict(relu.state_dict())
    torch.testing.assert_close(relu(x), expected(x))
    assert mlp.state_dict().keys() == relu.state_dict().keys()
    assert MLP(3, []).out_dim == 3 and torch.equal(MLP(3, [])(x), x)


def test_gaussian_head_is_two_affine_maps() -> None:
    head = GaussianHead(4, 3)
    h = torch.randn(2, 5, 4)
    weight, bias = head.affine.weight, head.affine.bias
    q = head(h)
    torch.testing.assert_close(q.mean, h @ weight[:3].T + bias[:3])
    torch.testing.assert_close(q.variance.log(), h @ weight[3:].T + bias[3:])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_recurrent_in_pieces_with_particles_is_pytorchs(layers: int, cell: str) -> None:
    net = Recurrent(3, 4, layers, cell)
    u = torch.randn(2, 5, 3, 3)  # particles, frames, sequences
    whole, last = net(u)
    expected = {"lstm": nn.LSTM, "rnn": nn.RNN}[cell](3, 4, layers)
    expected.load_state_dict(net.net.state_dict())
    torch.testing.assert_close(whole[1], expected(u[1])[0])
    state, outs = None, []
    for t in range(5):
        out, state = net(u[:, t : t + 1], state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, dim=1), whole)
    assert state is not None
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sees", ["past", "future", "all"])
@pytest.mark.parametrize("layers", [1, 2])
def test_context_runs_within_each_length(sees: str, layers: int) -> None:
    net = Context(3, 4, layers, sees)
    u = torch.randn(5, 3, 3)
    out = net(u, LENGTHS)
    assert out.shape == (5, 3, net.out_dim)
    for n, length in enumerate(LENGTHS.tolist()):
        alone = u[:length, n : n + 1]
        expected = net.net(alone.flip(0))[0].flip(0) if sees == "future" else net.net(alone)[0]
        torch.testing.assert_close(out[:length, n], expected[:, 0])


@pytest.mark.parametrize("backward_first", [False, True])
def test_both_directions_are_one_call_where_no_sequence_is_short(backward_first: bool) -> None:
    """The weights of one direction alone are a part of cuDNN's buffer, which it copies at every call."""
    net = Context(3, 4, 2, backward_first=backward_first)
    u = torch.randn(5, 3, 3)
    with CuDNN() as seen:
        out = net(u, torch.tensor([5, 5, 5]))
    assert len(seen.precisions) == 1
    with CuDNN() as seen:
        ragged = net(u, torch.tensor([5, 5, 4]))
    assert len(seen.precisions) == 2 * 2
    torch.testing.assert_close(out[:, :2], ragged[:, :2])


def test_published_order_of_directions_and_particles() -> None:
    """[backward; forward] is a bidirectional network on the reversed sequence; particles are more sequences."""
    net = Context(3, 4, 2, backward_first=True)
    u = torch.randn(2, 5, 3, 3)
    out = net(u, LENGTHS)
    for n, length in enumerate(LENGTHS.tolist()):
        expected = net.net(u[1, :length, n : n + 1].flip(0))[0].flip(0)
        torch.testing.assert_close(out[1, :length, n], expected[:, 0])


def test_ends_have_seen_all() -> None:
    net = Context(3, 4, 2)
    u = torch.randn(5, 3, 3)
    ends = net.ends(u, LENGTHS)
    for n, length in enumerate(LENGTHS.tolist()):
        out = net.net(u[:length, n : n + 1])[0][:, 0]
        torch.testing.assert_close(ends[n], torch.cat([out[-1, :4], out[0, 4:]]))
    with pytest.raises(ValueError, match="sees='all'"):
        Context(3, 4, sees="past").ends(u, LENGTHS)


def test_shift_is_the_frame_before() -> None:
    u = torch.randn(2, 4, 3, 1)
    assert torch.equal(shift(u)[:, 1:], u[:, :-1]) and not shift(u)[:, 0].any()


def test_reverse_undoes_itself_and_leaves_padding() -> None:
    u = torch.randn(5, 3, 2)
    once = reverse(u, LENGTHS)
    torch.testing.assert_close(once[:2, 1], u[:2, 1].flip(0))
    assert torch.equal(once[2:, 1], u[2:, 1]) and torch.equal(reverse(once, LENGTHS), u)


def test_concatenate_broadcasts_missing_particles_and_frames() -> None:
    v, z = torch.randn(3, 2), torch.randn(4, 5, 3, 1)
    joined = concatenate(v, z)
    assert joined.shape == (4, 5, 3, 3) and torch.equal(joined[2, 1, :, :2], v)


def test_log_input_is_standardised_on_the_training_frames() -> None:
    transform = InputTransform("log", 4).double()
    sequences = [torch.empty(t, 4, dtype=torch.float64).exponential_() * 10.0 ** torch.arange(4) for t in (30, 50)]
    transform.fit(sequences)
    frames = transform(torch.cat(sequences))
    torch.testing.assert_close(frames.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)
    assert bool(torch.isfinite(transform(torch.zeros(1, 4, dtype=torch.float64))).all()) and LOG_FLOOR > 0
    state = transform.state_dict()
    assert set(state) == {"mean", "scale"}


def test_raw_input_is_the_identity_and_other_inputs_are_refused() -> None:
    x = torch.rand(3, 4)
    transform = InputTransform("raw", 4)
    transform.fit([x])
    assert torch.equal(transform(x), x) and transform.state_dict() == {}
    with pytest.raises(UserError, match="unknown model.input 'logarithm'"):
        InputTransform("logarithm", 4)


def test_the_logarithm_and_the_standardisation_are_had_apart() -> None:
    x = torch.empty(40, 4, dtype=torch.float64).exponential_() * 10.0 ** torch.arange(-3, 1)
    plain, standard = (InputTransform(kind, 4).double() for kind in ("unscaled_log", "standard"))
    for transform in (plain, standard):
        transform.fit([x[:15], x[15:]])
    torch.testing.assert_close(plain(x), torch.log(x + LOG_FLOOR))
    torch.testing.assert_close(standard(x), (x - x.mean(0)) / x.std(0, correction=0))


def test_a_bin_that_never_moves_is_not_blown_up() -> None:
    x = torch.rand(20, 2)
    x[:, 0] = 0.3
    transform = InputTransform("standard", 2)
    transform.fit([x])
    torch.testing.assert_close(transform(x)[:, 0], torch.zeros(20), atol=1e-6, rtol=0)
    assert float(transform(x + torch.tensor([0.1, 0.0]))[0, 0]) == pytest.approx(0.1, abs=1e-6)


def test_no_logarithm_of_what_is_no_power() -> None:
    with pytest.raises(UserError, match="model.input=.* -1"):
        InputTransform("log", 2).fit([torch.tensor([[1.0, -1.0]])])
