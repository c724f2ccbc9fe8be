"""The state between frames: values, states of causal networks, and steps of slower time axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import pad

from models.core.tensors import concatenate

__all__ = ["Carry", "Causal", "SlowerStep", "State", "steps_before"]

State = tuple[Tensor, ...]


class Causal(Protocol):
    """A causal network over time: output t depends on inputs 1..t. It runs over all frames, or over some frames from
    the state before them.

    ``forward(u, state)`` takes u (..., T, N, D) and returns the outputs (..., T, N, H) and the state after the last
    frame; every tensor of a state has the dimensions (..., N, anything).
    """

    out_dim: int

    def __call__(self, u: Tensor, state: State | None = None) -> tuple[Tensor, State]: ...


@dataclass
class Carry:
    """The state between frames: the values of all sites, their conditionals, the recurrent states, and the present step
    of each slower axis.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    conditionals: dict[str, dist.TorchDistribution] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    slower: dict[int, SlowerStep] = field(default_factory=dict)


@dataclass
class SlowerStep:
    """The step of a slower axis that contains the present frame, see `models.core.time_axis.TimeAxis.slower`.

    Attributes:
        carry: the state between steps of that axis.
        last: features of the last frames, at most as many as a step has.
        output: the output of the step for its frames, (..., s, N, C).
    """

    carry: Carry = field(default_factory=Carry)
    last: list[Tensor] = field(default_factory=list)
    output: Tensor | None = None

    def remember(self, before: Tensor | None, stride: int) -> None:
        """Keep features of the frame before this one, (..., 1, N, C)."""
        if before is not None:
            self.last = [*self.last, before][-stride:]

    def frames_before(self, stride: int) -> Tensor | None:
        """Concatenated features of the s frames before this step, (..., 1, N, s C); None if there are none."""
        if not self.last:
            return None
        missing = [torch.zeros_like(self.last[0])] * (stride - len(self.last))
        return concatenate(*missing, *self.last)

    def frame(self, place: int) -> Tensor:
        """The output of the step for one of its frames, (..., 1, N, C)."""
        assert self.output is not None
        return self.output[..., place : place + 1, :, :]


def steps_before(before: Tensor, stride: int, steps: int) -> Tensor:
    """Concatenated features of the s frames before each step, (..., T', N, s C), zero before the first frame.

    Args:
        before: features of the frame before each frame, (..., T, N, C).
        stride: s.
        steps: T'.

    Example:
        >>> before = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).reshape(5, 1, 1)  # frame t has the number t + 1
        >>> steps_before(before, 2, 3)[:, 0].tolist()
        [[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]
    """
    delayed: Tensor = pad(before, (0, 0, 0, 0, stride - 1, 0))[..., : stride * steps, :, :]
    steps_of: Tensor = delayed.unflatten(-3, (-1, stride))
    return steps_of.transpose(-3, -2).flatten(-2)
