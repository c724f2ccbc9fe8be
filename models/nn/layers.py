"""The networks shared by all models and guides: an MLP, a recurrent network and a Gaussian head.

Shapes are those of `models.core.time_axis`: every network maps (..., T, N, in) to (..., T, N, out).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from models.core.affine import Affine, AffineMaps
from models.core.conditional import Conditional
from models.core.effects import ragged
from models.core.reuse import pure
from models.core.tensors import normal, reverse, shift

__all__ = ["MLP", "Context", "GaussianHead", "Recurrent", "shift"]


class MLP(nn.Sequential):
    """A sequence of layers, each an affine map and an activation; with no widths, the identity.

    Args:
        in_dim: size of the input.
        widths: size of each layer; an activation follows every layer, including the last.
        activation: the class of the activation.
    """

    def __init__(self, in_dim: int, widths: Sequence[int], activation: type[nn.Module] = nn.Tanh) -> None:
        sizes, tanh = [in_dim, *widths], activation is nn.Tanh
        layers = [Affine(a, b, tanh=tanh) for a, b in pairwise(sizes)]
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, layer in enumerate(layers):
            nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain("tanh"))
            nn.init.zeros_(layer.bias)
            parts[f"{2 * index}"] = layer  # the names of a sequence of maps and activations, also where there are none
            if not tanh:
                parts[f"{2 * index + 1}"] = activation()
        super().__init__(parts)
        self.out_dim = sizes[-1]

    @pure
    def forward(self, u: Tensor) -> Tensor:
        """From u (..., in) to (..., out)."""
        for part in self:
            u = part(u)
        return u

    @property
    def affine(self) -> list[nn.Linear]:
        """Its layers, in order, of which loops take weight and bias."""
        return [part for part in self if isinstance(part, nn.Linear)]


class GaussianHead(Conditional):
    """N(mean, exp(log-variance)) of two affine maps of the input."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.affine = AffineMaps(in_dim, [out_dim, out_dim])

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        return normal(*self.affine(h).chunk(2, dim=-1))


FUSED: dict[type[nn.RNNBase], Callable[..., tuple[Tensor, ...]]] = {
    nn.LSTM: torch.lstm,
    nn.GRU: torch.gru,
    nn.RNN: torch.rnn_tanh,
}
"""For each kind of network, the function that computes all frames in one call, on CUDA by cuDNN's kernels."""


def recurrence(net: nn.RNNBase, u: Tensor, before: Any = None, direction: tuple[int, str] | None = None) -> Any:
    """Compute `net(u, before)`, differentiable also in eval mode, and in the precision of the weights.

    `nn.LSTM.forward` passes its `training` flag to cuDNN, which stores the intermediate results of the backward pass
    only if it is set. Gradients also flow through the networks of a frozen run, which are in eval mode, so here the
    flag is set whenever gradients are enabled. It has no other effect on networks without dropout.

    Autocast is disabled here: it would run the network in half precision, on CUDA in float16 whatever type was
    requested, in which small gradients underflow to zero.

    Args:
        net: a network without dropout, `batch_first` or projections.
        u: its input (T, B, in).
        before: the initial state h (layers, B, H), or (h, c) of an LSTM; None means zero.
        direction: run a single layer in a single direction (``""``, ``"_reverse"``), forwards in time.

    Returns:
        The outputs (T, B, H) and the state after the last frame.
    """
    if direction is None:
        weights = [weight for part in net.all_weights for weight in part]
        layers, ways = net.num_layers, 2 if net.bidirectional else 1
    else:
        weights = [getattr(net, f"{name}_l{direction[0]}{direction[1]}") for name in WEIGHTS]
        layers, ways = 1, 1
    lstm = isinstance(net, nn.LSTM)
    half = torch.is_autocast_enabled(u.device.type)
    with torch.autocast(u.device.type, enabled=False) if half else nullcontext():
        u = u.to(weights[0].dtype)
        if before is None:
            start = u.new_zeros(layers * ways, u.shape[1], net.hidden_size)
            before = (start, start) if lstm else start
        keep = net.training or torch.is_grad_enabled()
        fused = next(call for kind, call in FUSED.items() if isinstance(net, kind))
        out, *after = fused(u, before, weights, True, layers, 0.0, keep, ways == 2, False)
    return out, tuple(after) if lstm else after[0]


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""The names of the parameters of a layer, in the order of the arguments of PyTorch's functions."""


class Recurrent(nn.Module):
    """A recurrent network over time with initial state zero; a `models.core.time_axis.Causal` network.

    Args:
        in_dim: size of the input.
        out_dim: size H of the state.
        layers: number of layers.
        cell: ``"lstm"``, ``"gru"``, or ``"rnn"`` for the plain tanh recurrence.
    """

    def __init__(self, in_dim: int, out_dim: int, layers: int = 1, cell: str = "lstm") -> None:
        super().__init__()
        self.out_dim = out_dim
        cells: dict[str, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
        self.net = cells[cell](in_dim, out_dim, layers)

    @pure
    def forward(self, u: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs (..., T, N, H) and the state after the last frame, (..., N, H) for each layer's h (and c)."""
        *leading, frames, sequences, _ = u.shape
        batch = (*leading, sequences)
        folded = u.movedim(-3, 0).reshape(frames, -1, u.shape[-1])
        before: Any = None
        if state is not None:
            layers = [s.expand(*batch, self.out_dim).reshape(-1, self.out_dim) for s in state]
            h_c = torch.stack(layers).chunk(len(layers) // self.net.num_layers)
            before = h_c if isinstance(self.net, nn.LSTM) else h_c[0]
        out, after = recurrence(self.net, folded, before)
        last = torch.cat(after) if isinstance(after, tuple) else after
        out = out.reshape(frames, *batch, self.out_dim).movedim(0, -3)
        return out, tuple(s.reshape(*batch, self.out_dim) for s in last)


class Context(nn.Module):
    """A summary of x around each frame by an LSTM: of its past x_{1:t}, its future x_{t:T}, or all of it.

    Args:
        in_dim: size of the input.
        width: size H of the LSTM in each direction.
        layers: number of layers.
        sees: the frames that the output depends on: ``"past"``, ``"future"`` or ``"all"``. For all, the output is
            [forward; backward], of size 2H.
        backward_first: for all, the output is [backward; forward], as in the published RVAE.
    """

    def __init__(
        self, in_dim: int, width: int, layers: int = 1, sees: str = "all", *, backward_first: bool = False
    ) -> None:
        super().__init__()
        self.net = nn.LSTM(in_dim, width, layers, bidirectional=sees == "all")
        self.reversed = sees == "future" or backward_first
        self.out_dim = width * (2 if sees == "all" else 1)

    def forward(self, u: Tensor, lengths: Tensor) -> Tensor:
        """From u (..., T, N, in) to (..., T, N, out), each sequence within its own length."""
        *leading, frames, sequences, _ = u.shape
        folded = u.movedim(-3, 0).reshape(frames, -1, u.shape[-1])
        every = lengths.expand(*leading, sequences).reshape(-1)
        ordered = reverse(folded, every) if self.reversed else folded
        out = self._both_ways(ordered, every) if self.net.bidirectional else recurrence(self.net, ordered)[0]
        out = reverse(out, every) if self.reversed else out
        return out.reshape(frames, *leading, sequences, -1).movedim(0, -3)

    def ends(self, u: Tensor, lengths: Tensor) -> Tensor:
        """The last state of each direction, which depends on all frames of a sequence, in the order of the output:
        (..., N, 2H).

        Raises:
            ValueError: The network was not built with ``sees="all"``.
        """
        if not self.net.bidirectional:
            raise ValueError("this network has no backward direction; build it with sees='all'")
        out = self(u, lengths)
        last = (lengths.to(u.device) - 1)[:, None].expand(*out.shape[:-3], 1, -1, out.shape[-1])
        first, last = out[..., 0, :, :], out.gather(-3, last)[..., 0, :, :]
        ends = (first, last) if self.reversed else (last, first)
        width = self.net.hidden_size
        return torch.cat([ends[0][..., :width], ends[1][..., width:]], dim=-1)

    def _both_ways(self, u: Tensor, lengths: Tensor) -> Tensor:
        """The bidirectional LSTM on u (T, B, in). Where lengths differ, each direction is run separately over padded
        sequences, the backward one over reversed sequences.

        The alternative for different lengths, the fused call on packed sequences, has a backward pass that is quadratic
        in T on a CPU. On CUDA, running a single direction makes cuDNN copy its weights at every call, as they are only
        a part of its buffer; so the fused call is used where lengths are equal.
        """
        if not ragged(lengths, u.shape[0]):
            out: Tensor = recurrence(self.net, u)[0]
            return out
        for layer in range(self.net.num_layers):
            forward, _ = recurrence(self.net, u, direction=(layer, ""))
            backward, _ = recurrence(self.net, reverse(u, lengths), direction=(layer, "_reverse"))
            u = torch.cat([forward, reverse(backward, lengths)], dim=-1)
        return u
