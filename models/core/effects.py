"""What handlers can see of the time axis, besides Pyro's own sample statements.

Seven effects are sent down Pyro's handler stack:

- ``prev``: the value that a conditional takes as "one frame earlier". A handler may hand back another one
  (`inference.handlers.free_running` hands back the model's own output).
- ``conditional``: the distribution that a site is given. A handler may put another in its place
  (`inference.handlers.scheduled_sampling` that of the true past,
  `inference.estimation.refinement.Refined` a nearby one).
- ``draw``: the value a latent takes when nobody has set it. A handler may choose it
  (`inference.handlers.mean_latents`, `given_noise`).
- ``auxiliary``: what a guide could ask a latent for in training, beside the bound. A handler may have it asked
  (`inference.handlers.auxiliary_cost`).
- ``uniform``: numbers that other chances are decided by (`inference.handlers.noise.whole_batch`).
- ``longest``, ``ragged``: what decides by the lengths of a batch how it is computed. Its longest sequence may be
  elsewhere (the same handler), or somebody knows, so that nobody need look
  (`inference.training.recorded_step.known_shape`).

and one question is asked of the stack: `known`, the value that an outer handler is going to give a site.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
from pyro.poutine import runtime
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import effectful, get_plates
from torch import Size, Tensor, device, rand

if TYPE_CHECKING:
    from models.core.time_axis import TimeAxis

__all__ = [
    "Given",
    "Scope",
    "Sequential",
    "auxiliary",
    "base_name",
    "conditional",
    "draw",
    "enclosing_shape",
    "known",
    "longest",
    "previous",
    "ragged",
    "uniform",
]


class Sequential(Exception):
    """Raised where a pass over all frames at once is impossible: the interpreter goes frame by frame
    instead.
    """


class Given(Messenger):
    """Give sample sites the values already drawn for them, and leave all else alone.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> with Given({"z": torch.tensor(2.0)}):
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        tensor(2.)
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class Scope(Messenger):
    """Put a prefix before the names of all sample sites inside: two models in one program keep theirs apart.

    Example:
        >>> import pyro, pyro.distributions as dist, pyro.poutine as poutine
        >>> with poutine.trace() as tracer, Scope("a."):
        ...     _ = pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> [name for name in tracer.trace.nodes]
        ['a.z']
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def _pyro_sample(self, msg: Any) -> None:
        msg["name"] = self.prefix + msg["name"]


def known(name: str) -> Tensor | None:
    """The value that a handler in force will give to sample site `name`, or None if it is still to be drawn."""
    for handler in reversed(runtime._PYRO_STACK):
        if isinstance(handler, Scope):
            name = handler.prefix + name
        if isinstance(handler, BlockMessenger) and handler.hide_fn(_sample_message(name)):
            return None
        values: Any = None
        if isinstance(handler, Given):
            values = handler.values
        elif isinstance(handler, ConditionMessenger):
            values = handler.data
        elif isinstance(handler, ReplayMessenger):
            values = handler.trace
        if values is not None and name in values:
            value = values[name] if isinstance(values, dict) else values.nodes[name]["value"]
            return value if isinstance(value, Tensor) else None
    return None


def _sample_message(name: str) -> Any:  # what a block asks about
    return {"type": "sample", "name": name, "is_observed": False, "infer": {}, "fn": None, "value": None}


@effectful(type="prev")
def previous(name: str, value: Tensor, axis: TimeAxis) -> Tensor:
    """Effect: the value of `name` one frame earlier. The default is the true one."""
    return value


@effectful(type="conditional")
def conditional(name: str, distribution: dist.TorchDistribution, axis: TimeAxis | None) -> dist.TorchDistribution:
    """Effect: the distribution of site `name` in the frames of `axis`, or, without one, of a site outside time.

    The default is the step's own.
    """
    return distribution


@effectful(type="draw")
def draw(name: str, distribution: dist.TorchDistribution, axis: TimeAxis | None) -> Tensor:
    """Effect: a value for site `name` in the frames of `axis`, or, without one, for a site outside time.

    The default is a (reparametrised) sample.
    """
    value: Tensor = distribution.rsample() if distribution.has_rsample else distribution.sample()
    return value


@effectful(type="auxiliary")
def auxiliary(name: str, density: Callable[[Tensor], Tensor]) -> None:
    """Effect: given all frames of latent `name`, (..., T, N, L), something that a guide knows has the log-density
    `density`, (..., T, N). By default it is not asked for.
    """


@effectful(type="uniform")
def uniform(frames: int, sequences: int, device: device) -> Tensor:
    """Effect: numbers from 0 to 1 for each frame of each sequence, (T, N, 1). The default draws them."""
    return rand(frames, sequences, 1, device=device)


@effectful(type="longest")
def longest(lengths: Tensor) -> int:
    """Effect: how many frames a batch has. The default: those of its longest sequence."""
    return int(lengths.max())


@effectful(type="ragged")
def ragged(lengths: Tensor, frames: int) -> bool:
    """Effect: whether there are sequences shorter than `frames`. The default looks."""
    return bool((lengths != frames).any())


def enclosing_shape(inner: int) -> Size:
    """Sizes of the enclosing plates to the left of the `inner` rightmost dimensions: the particle
    dimensions.
    """
    sizes = {frame.dim: frame.size for frame in get_plates() if frame.dim is not None and frame.dim < -inner}
    return Size([sizes.get(dim, 1) for dim in range(min(sizes, default=-inner), -inner)])


def base_name(site: str) -> str:
    """The name of a site without its frame: ``"z_12"`` is ``"z"``.

    Example:
        >>> base_name("z_12"), base_name("mu2")
        ('z', 'mu2')
    """
    return re.sub(r"_\d+$", "", site)
