"""The shape of a batch, known beforehand, as a poutine."""

from __future__ import annotations

from typing import Any, Self

from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["known_shape"]


class known_shape(Messenger):
    """Set the effects ``longest`` and ``ragged``, so that they are not computed from lengths.

    The longest sequence of a batch may be in another process; and reading lengths on a device would wait for it.

    Args:
        frames: T of the batch, including padding.
        ragged: whether there may be sequences with fewer frames. True is valid for any lengths, False is faster.
    """

    def __init__(self, frames: int, *, ragged: bool) -> None:
        super().__init__()
        self.frames, self.ragged = frames, ragged

    @classmethod
    def of(cls, x: Tensor, lengths: Tensor) -> Self:
        """The shape of a batch x (T, N, D) with lengths (N,), on the CPU; all may be shorter than T."""
        return cls(len(x), ragged=any(length != len(x) for length in lengths.tolist()))

    def _pyro_longest(self, msg: Any) -> None:
        msg["value"], msg["done"] = self.frames, True

    def _pyro_ragged(self, msg: Any) -> None:
        msg["value"], msg["done"] = self.ragged, True
