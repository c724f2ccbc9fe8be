"""Sequences cut into segments that a model takes at once, and put together again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["SegmentedBatch", "cut"]


class SegmentedBatch(NamedTuple):
    """Sequences in segments that follow one another or overlap, all but the last of each of them full.

    Attributes:
        x: the segments (S, K, D), zero beyond each length.
        lengths: frames of each, (K,), on the CPU.
        row: the sequence that each is of, (K,), on the CPU.
        place: which one of the sequence it is, (K,), on the CPU.
        hop: frames from one segment of a sequence to the next.
    """

    x: Tensor
    lengths: Tensor
    row: Tensor
    place: Tensor
    hop: int

    def joined(self, y: Tensor, frames: int) -> Tensor:
        """Something of each segment's frames (S, K, D) as sequences (T, N, D) of `frames` frames: where segments
        overlap the mean of theirs, zero beyond each length.
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
        """A number of each segment (K,) summed over each sequence, (N,)."""
        row = self.row.to(of_segment.device)
        return of_segment.new_zeros(int(row.max()) + 1).index_add(0, row, of_segment)


def cut(x: Tensor, lengths: Tensor, size: int, *, hop: int | None = None, full: bool = False) -> SegmentedBatch:
    """Cut sequences into segments.

    Args:
        x: data (T, N, D).
        lengths: frames of each sequence (N,), on the CPU, at least 1.
        size: frames of a segment.
        hop: frames from one segment to the next, 1 to `size`; None is `size`, segments that follow one another. The
            last one of a sequence is the first that reaches its end.
        full: leave out the rest of a sequence that fills no segment, unless it is all there is.

    Raises:
        ValueError: for another hop.

    Example:
        >>> parts = cut(torch.arange(5.0).reshape(5, 1, 1), torch.tensor([5]), 2)
        >>> parts.x[:, :, 0].tolist(), parts.lengths.tolist(), parts.joined(parts.x, 5).flatten().tolist()
        ([[0.0, 2.0, 4.0], [1.0, 3.0, 0.0]], [2, 2, 1], [0.0, 1.0, 2.0, 3.0, 4.0])
    """
    hop = size if hop is None else hop
    if not 1 <= hop <= size:
        raise ValueError(f"hop={hop}: expected 1 to {size} frames, or frames would be left out")
    frames, sequences, _ = x.shape
    count = 1 + max(0, -(-(frames - size) // hop))
    whole = pad(x, (0, 0, 0, 0, 0, (count - 1) * hop + size - frames)).unfold(0, size, hop)
    place, row = torch.arange(count).repeat_interleave(sequences), torch.arange(sequences).repeat(count)
    left = lengths[row] - place * hop
    kept = (place == 0) | (left > (size - 1 if full else size - hop))
    place, row, of_segment = place[kept], row[kept], left[kept].clamp(max=size)
    segments = whole[place, row].permute(2, 0, 1)[: int(of_segment.max())]
    mask = torch.arange(len(segments))[:, None] < of_segment
    return SegmentedBatch(segments * mask.to(segments)[..., None], of_segment, row, place, hop)
