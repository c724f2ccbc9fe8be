"""Cutting sequences into segments of fixed length, and joining them again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["SegmentedBatch", "cut"]


class SegmentedBatch(NamedTuple):
    """Sequences cut into consecutive or overlapping segments; only the last segment of a sequence may be shorter.

    Attributes:
        x: the segments (S, K, D), zero beyond each length.
        lengths: frames of each segment, (K,), on the CPU.
        row: index of the sequence that each segment belongs to, (K,), on the CPU.
        place: index of each segment within its sequence, (K,), on the CPU.
        hop: frames from one segment of a sequence to the next.
    """

    x: Tensor
    lengths: Tensor
    row: Tensor
    place: Tensor
    hop: int

    def joined(self, y: Tensor, frames: int) -> Tensor:
        """Join values of the segments' frames (S, K, D) to sequences (T, N, D) of `frames` frames: the mean where
        segments overlap, zero beyond each length.
        """
        size, sequences = len(y), int(self.row.max()) + 1
        frame = torch.arange(size)[:, None]
        inside = (frame < self.lengths).to(y.device)
        index = ((self.place * self.hop + frame) * sequences + self.row).to(y.device)[inside]
        total = y.new_zeros(frames * sequences, y.shape[-1]).index_add(0, index, y[inside])
        count = y.new_zeros(frames * sequences).index_add(0, index, torch.ones_like(y[inside][:, 0]))
        mean: Tensor = (total / count.clamp_min(1.0)[:, None]).unflatten(0, (frames, sequences))
        return mean

    def summed(self, of_segment: Tensor) -> Tensor:
        """The sum over the segments of each sequence, (N,), of a value per segment (K,)."""
        row = self.row.to(of_segment.device)
        return of_segment.new_zeros(int(row.max()) + 1).index_add(0, row, of_segment)


def cut(x: Tensor, lengths: Tensor, size: int, *, hop: int | None = None, full: bool = False) -> SegmentedBatch:
    """Cut sequences into segments.

    Args:
        x: data (T, N, D).
        lengths: frames of each sequence (N,), on the CPU, at least 1.
        size: frames of a segment.
        hop: frames from one segment to the next, 1 to `size`; None is `size`, consecutive segments. The last segment of
            a sequence is the first that reaches its end.
        full: omit the remainder of a sequence that does not fill a segment, unless the sequence is shorter than one.

    Raises:
        ValueError: for a hop outside 1 to `size`.

    Example:
        >>> parts = cut(torch.arange(5.0).reshape(5, 1, 1), torch.tensor([5]), 2)
        >>> parts.x[:, :, 0].tolist(), parts.lengths.tolist(), parts.joined(parts.x, 5).flatten().tolist()
        ([[0.0, 2.0, 4.0], [1.0, 3.0, 0.0]], [2, 2, 1], [0.0, 1.0, 2.0, 3.0, 4.0])
    """
    hop = size if hop is None else hop
    if not 1 <= hop <= size:
        raise ValueError(f"hop={hop}: expected 1 to {size} frames; with more, frames would be left out")
    frames, sequences, _ = x.shape
    count = 1 + max(0, -(-(frames - size) // hop))
    windows = pad(x, (0, 0, 0, 0, 0, (count - 1) * hop + size - frames)).unfold(0, size, hop)
    place, row = torch.arange(count).repeat_interleave(sequences), torch.arange(sequences).repeat(count)
    left = lengths[row] - place * hop
    kept = (place == 0) | (left > (size - 1 if full else size - hop))
    place, row, of_segment = place[kept], row[kept], left[kept].clamp(max=size)
    segments = windows[place, row].permute(2, 0, 1)[: int(of_segment.max())]
    mask = torch.arange(len(segments))[:, None] < of_segment
    return SegmentedBatch(segments * mask.to(segments)[..., None], of_segment, row, place, hop)
