r"""Transformers over time: attention, layers, an encoder of whole sequences, and a causal decoder with caches.

The layer is that of Vaswani et al., "Attention is all you need" (2017), with one head: each of its parts
(self-attention, cross-attention to a second stream, a feed-forward network with ReLU) is followed by

.. math:: u \leftarrow \mathrm{LayerNorm}(u + \mathrm{part}(u)),

and sinusoidal position encodings are added to the input of the first layer. They are computed, not stored, so
sequences may have any length. In this module time is the second last dimension: streams are (..., N, T, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dvae_pyro.errors import UserError
from models.core.effects import ragged

__all__ = ["Attention", "Decoder", "Encoder", "Layer", "layers", "positions"]

State = tuple[Tensor, ...]
Attend = Callable[["Attention", int, Tensor], Tensor]


def positions(start: int, stop: int, width: int, like: Tensor) -> Tensor:
    r"""Position encodings of frames `start` .. `stop` - 1, (T, width), with dtype and device of `like`.

    .. math:: \sin(t / 10000^{2 i / width}), \cos(t / 10000^{2 i / width}), \quad i = 0 .. width / 2 - 1

    Example:
        >>> positions(0, 2, 4, torch.zeros(1)).round(decimals=2).tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.8399999737739563, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    t = torch.arange(start, stop, device=like.device, dtype=torch.float64)
    rates = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=torch.float64) * (-math.log(1e4) / width))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)


class Attention(nn.Module):
    r"""Single-head attention: softmax(Q K' / \sqrt{width}) V, followed by an affine map.

    Keys and values are computed by one affine map and kept as one tensor, [K; V].

    Args:
        width: size of the streams, queries, keys and values.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        for affine in (self.query, self.key_value, self.out):
            nn.init.xavier_uniform_(affine.weight)
            nn.init.zeros_(affine.bias)

    def forward(self, u: Tensor, key_value: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """From u (..., N, T, width) and [K; V] (..., N, S, 2 width) to (..., N, T, width).

        Args:
            u: the stream that queries are computed from.
            key_value: keys and values.
            mask: bool, broadcastable to (N, T, S): true where a frame attends; None: everywhere.
            causal: whether frame t attends to frames 1..t only; needs T = S.
        """
        q, k, v = (part.flatten(0, -3)[:, None] for part in (self.query(u), *key_value.chunk(2, dim=-1)))
        if mask is not None:
            mask = mask.expand(*u.shape[:-2], *mask.shape[-2:]).flatten(0, -3)[:, None]
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(attended.reshape(u.shape))
        return out


class Layer(nn.Module):
    """One layer of a transformer: self-attention, optional cross-attention, and a feed-forward network.

    Args:
        width: size of the streams.
        ff: width of the feed-forward network.
        crossing: whether there is cross-attention to a second stream.
        dropout: dropout probability of each part's output.
    """

    def __init__(self, width: int, ff: int, *, crossing: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width) for _ in range(2 if crossing else 1))
        self.feed = nn.Sequential(nn.Linear(width, ff), nn.ReLU(), nn.Linear(ff, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if crossing else 2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor, attend: Attend, *, residual: bool = True) -> Tensor:
        """Apply the attentions in order, then the feed-forward network.

        Args:
            u: the stream.
            attend: calls an attention module, given its index (0: self, 1: cross), with its source and mask.
            residual: whether the input of a part is added to its output.
        """
        for place, norm in enumerate(self.norms):
            last = place == len(self.attentions)
            part = self.feed(u) if last else attend(cast(Attention, self.attentions[place]), place, u)
            u = norm(u + self.dropout(part) if residual else self.dropout(part))
        return u


def layers(number: int, width: int, ff: int, *, crossing: bool, dropout: float = 0.0) -> nn.ModuleList:
    """A list of `number` layers of a transformer.

    Raises:
        UserError: for an odd width, as position encodings are pairs of sine and cosine, or a dropout outside 0 to 1.
    """
    if width % 2:
        raise UserError(
            f"d_model={width}: expected an even number, as position encodings are pairs of sine and cosine."
        )
    if not 0.0 <= dropout < 1.0:
        raise UserError(f"dropout={dropout}: expected a probability, at least 0 and below 1.")
    return nn.ModuleList(Layer(width, ff, crossing=crossing, dropout=dropout) for _ in range(number))


class Encoder(nn.Module):
    """A transformer encoder: every frame attends to all frames of its sequence.

    Args:
        in_dim: size of the input, which an affine map embeds.
        width: size of the stream.
        ff: width of the feed-forward networks.
        number: number of layers.
        dropout: see `Layer`.
    """

    def __init__(self, in_dim: int, width: int, ff: int, number: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Linear(in_dim, width)
        self.layers = layers(number, width, ff, crossing=False, dropout=dropout)
        self.out_dim = width

    def forward(self, u: Tensor, lengths: Tensor) -> Tensor:
        """From u (..., T, N, in) to (..., T, N, width), each sequence within its own length."""
        frames = u.shape[-3]
        stream = self.embedding(u.movedim(-2, -3)) + positions(0, frames, self.out_dim, u)
        mask = None
        if ragged(lengths, frames):
            mask = (torch.arange(frames, device=lengths.device) < lengths[:, None])[:, None].to(u.device)

        def attend(attention: Attention, _: int, u: Tensor) -> Tensor:
            attended: Tensor = attention(u, attention.key_value(u), mask)
            return attended

        for layer in self.layers:
            stream = layer(stream, attend)
        out: Tensor = stream.movedim(-3, -2)
        return out


@dataclass
class _Buffer:
    """A tensor (..., N, capacity, D) of which the first `used` frames are filled. A cache of exactly `used` frames may
    append in place; a shorter one must copy, because another cache has filled the frames after it.
    """

    data: Tensor
    used: int


class _Cache(NamedTuple):
    """Keys and values of past frames, (..., N, t, D), optionally a view of a buffer with capacity for more frames."""

    seen: Tensor | None
    buffer: _Buffer | None = None

    def grown(self, new: Tensor) -> _Cache:
        """The cache with `new` appended. Without gradients the buffer doubles when it is full, so appending takes
        amortised constant time; with gradients, which need every version, or a subclass of Tensor, such as Pyro's for
        dependencies, everything is copied.
        """
        if self.seen is None:
            return _Cache(new)
        batch = torch.broadcast_shapes(self.seen.shape[:-2], new.shape[:-2])
        seen, new = (u.expand(*batch, *u.shape[-2:]) for u in (self.seen, new))
        if torch.is_grad_enabled() or {type(seen), type(new)} != {Tensor}:
            return _Cache(torch.cat([seen, new], dim=-2))
        before, after, buffer = seen.shape[-2], seen.shape[-2] + new.shape[-2], self.buffer
        if buffer is None or buffer.used != before or buffer.data.shape[:-2] != batch or buffer.data.shape[-2] < after:
            buffer = _Buffer(new.new_empty(*batch, 2 * after, new.shape[-1]), before)
            buffer.data[..., :before, :] = seen
        buffer.data[..., before:after, :] = new
        buffer.used = after
        return _Cache(buffer.data[..., :after, :], buffer)


class _State(tuple[Tensor, ...]):
    """A state with references to the buffers of its tensors. Indexing or copying it gives a plain tuple without them,
    for which new buffers are allocated at the next append.
    """

    buffers: tuple[_Buffer | None, ...]

    @classmethod
    def of(cls, caches: list[_Cache]) -> _State:
        state = cls(cache.seen for cache in caches if cache.seen is not None)
        state.buffers = tuple(cache.buffer for cache in caches)
        return state


def _pasts(state: State | None, number: int) -> list[_Cache]:
    if state is None:
        return [_Cache(None)] * number
    buffers = state.buffers if isinstance(state, _State) else (None,) * number
    return [_Cache(seen, buffer) for seen, buffer in zip(state, buffers, strict=True)]


class Decoder:
    """A causal transformer decoder, a `models.core.time_axis.Causal` network: frame t of a stream attends to frames
    1..t of its own stream, the query of the cross-attention, and of a second one, its key and value.

    It has no parameters of its own, so that several decoders can share layers.

    Args:
        layers: layers with cross-attention.
        width: size of the streams.
        residual: see `Layer`.
    """

    def __init__(self, layers: nn.ModuleList, width: int, *, residual: bool = True) -> None:
        self.layers = layers
        self.out_dim = width
        self.residual = residual

    def __call__(self, u: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """From [query; key], two streams, (..., T, N, 2 width) to (..., T, N, width), and the state.

        A state holds keys and values of all frames so far, (..., N, t, 2 width) for each attention in order, so that
        frame-by-frame runs do not recompute the past.
        """
        stream, key = u.movedim(-2, -3).chunk(2, dim=-1)
        seen, frames = 0 if state is None else state[0].shape[-2], stream.shape[-2]
        position = positions(seen, seen + frames, self.out_dim, u)
        stream, key = (stream + position).contiguous(), (key + position).contiguous()
        mask = None
        if seen and frames > 1:
            mask = torch.ones(frames, seen + frames, dtype=torch.bool, device=u.device).tril(seen)
        pasts = _pasts(state, 2 * len(self.layers))
        caches: list[_Cache] = []

        def attend(attention: Attention, place: int, u: Tensor) -> Tensor:
            caches.append(pasts[len(caches)].grown(attention.key_value(key if place else u)))
            attended: Tensor = attention(u, caches[-1].seen, mask, causal=not seen and frames > 1)
            return attended

        for layer in self.layers:
            stream = layer(stream, attend, residual=self.residual)
        return stream.movedim(-3, -2), _State.of(caches)
