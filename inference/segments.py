"""Sequences cut into segments that a model takes at once, and put together again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Cut", "cut"]


class Cut(NamedTuple):
    """Sequences in consecutive segments, all but the last of each of them full.

    Attributes:
        x: the segments (S, K, D), zero beyond each length.
        lengths: frames of each, (K,), on the CPU.
        row: the sequence that each is of, (K,), on the CPU.
        place: which one of the sequence it is, (K,), on the CPU.
    """

    x: Tensor
    lengths: Tensor
    row: Tensor
    place: Tensor

    def joined(self, y: Tensor, frames: int) -> Tensor:
        """Something of each segment's frames (S, K, D) as sequences (T, N, D) of `frames` frames, zero elsewhere."""
        size, _, dim = y.shape
        whole = y.new_zeros(int(self.place.max()) + 1, size, int(self.row.max()) + 1, dim)
        whole[self.place, :, self.row] = y.transpose(0, 1)
        return pad(whole.flatten(0, 1), (0, 0, 0, 0, 0, max(0, frames - whole.shape[0] * size)))[:frames]

    def summed(self, of_segment: Tensor) -> Tensor:
        """A number of each segment (K,) summed over each sequence, (N,)."""
        row = self.row.to(of_segment.device)
        return of_segment.new_zeros(int(row.max()) + 1).index_add(0, row, of_segment)


def cut(x: Tensor, lengths: Tensor, size: int, *, full: bool = False) -> Cut:
    """Cut sequences into segments.

    Args:
        x: data (T, N, D).
        lengths: frames of each sequence (N,), on the CPU, at least 1.
        size: frames of a segment.
        full: leave out the rest of a sequence that fills no segment, unless it is all there is.

    Example:
        >>> parts = cut(torch.arange(5.0).reshape(5, 1, 1), torch.tensor([5]), 2)
        >>> parts.x[:, :, 0].tolist(), parts.lengths.tolist(), parts.joined(parts.x, 5).flatten().tolist()
        ([[0.0, 2.0, 4.0], [1.0, 3.0, 0.0]], [2, 2, 1], [0.0, 1.0, 2.0, 3.0, 4.0])
    """
    frames, sequences, dim = x.shape
    count = -(-frames // size)
    whole = pad(x, (0, 0, 0, 0, 0, count * size - frames)).reshape(count, size, sequences, dim)
    place, row = torch.arange(count).repeat_interleave(sequences), torch.arange(sequences).repeat(count)
    of_segment = (lengths[row] - place * size).clamp(0, size)
    kept = (of_segment == size) | ((place == 0) if full else (of_segment > 0))
    place, row, of_segment = place[kept], row[kept], of_segment[kept]
    segments = whole[place, :, row].transpose(0, 1)[: int(of_segment.max())]
    mask = torch.arange(len(segments))[:, None] < of_segment
    return Cut(segments * mask.to(segments)[..., None], of_segment, row, place)
