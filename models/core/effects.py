"""Effects of the time axis: messages on Pyro's handler stack besides sample statements.

- ``prev``: the value of a site one frame earlier, as a conditional takes it. A handler can replace it
  (`inference.handlers.free_running` by the model's own output).
- ``conditional``: the distribution of a site. A handler can replace it (`inference.handlers.scheduled_sampling` by the
  teacher-forced one, `inference.estimation.refinement.Refined` by one with offsets).
- ``draw``: the value of a latent that no handler has set. A handler can compute it
  (`inference.handlers.mean_latents`, `given_noise`).
- ``auxiliary``: an auxiliary log-density of a guide, not part of the bound. A handler can add it to the objective
  (`inference.handlers.auxiliary_cost`).
- ``uniform``: uniform random numbers for other random decisions (`inference.handlers.noise.BatchNoise`).
- ``longest``, ``ragged``: the frames of the longest sequence of a batch, and whether sequences are padded. A handler
  can set them (`inference.handlers.known_shape`): the longest sequence may be in another process, and known values
  avoid a device synchronisation.

`anticipated` queries the stack: what handlers will do at a sample site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

import pyro.distributions as dist
import torch
from pyro.poutine import runtime
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.markov_messenger import MarkovMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import effectful, get_plates
from torch import Size, Tensor, device, rand

if TYPE_CHECKING:
    from models.core.time_axis import TimeAxis

__all__ = [
    "Anticipated",
    "Given",
    "Scope",
    "Sequential",
    "anticipated",
    "auxiliary",
    "base_name",
    "conditional",
    "draw",
    "effect",
    "enclosing_shape",
    "foreseen",
    "longest",
    "misplaced",
    "own_draw",
    "previous",
    "ragged",
    "same",
    "uniform",
]


P = ParamSpec("P")
T = TypeVar("T")


def effect(kind: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function as a message of this type, of this name too: handlers of users take names for strings."""

    def decorate(default: Callable[P, T]) -> Callable[P, T]:
        send = effectful(default, type=kind)

        @wraps(default)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            value: T = send(*args, name=kind, **kwargs)
            return value

        return call

    return decorate


class Sequential(Exception):
    """Raised where all frames cannot be computed at once; the interpreter then runs frame by frame."""


class Given(Messenger):
    """Set sample sites to values that are drawn already; other sites are unchanged.

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
    """Add a prefix to the names of all sample sites within the context, so that two models can share a program.

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


class Anticipated(NamedTuple):
    """What the active handlers will do at a sample site.

    Attributes:
        value: the value that they will set; None: the site will be drawn.
        observed: whether the site will be observed.
        enumerated: whether its values will be enumerated.
    """

    value: Any
    observed: bool
    enumerated: bool


def anticipated(
    name: str, distribution: dist.TorchDistribution, data: Tensor | None = None, *, stand_in: bool = False
) -> Anticipated:
    """Determine what the active handlers will do at sample site `name`, before its sample statement.

    Pyro has no such query. Each handler processes a test message, as in `pyro.poutine.runtime.apply_stack`, with an
    empty stack: nothing is drawn or recorded, and messages that a handler sends meanwhile have no effect. The result is
    verified at the sample statement, see `models.core.sites.Sites.register`.

    Args:
        name: the site.
        distribution: its distribution.
        data: its observed value.
        stand_in: whether the distribution is a placeholder for one that is not known yet: handlers that raise an error
            for it are skipped.
    """
    message: Any = {
        **{"type": "sample", "name": name, "fn": distribution, "args": (), "kwargs": {}},
        **{"is_observed": data is not None, "value": data, "infer": {}, "scale": 1.0, "mask": None},
        **{"cond_indep_stack": (), "done": False, "stop": False, "continuation": None, "anticipated": True},
    }
    stack = runtime._PYRO_STACK
    handlers, stack[:] = stack[:], []
    try:
        for handler in reversed(handlers):
            if isinstance(handler, MarkovMessenger | EnumMessenger):  # they record sites, but set no value
                continue
            try:
                handler._process_message(message)
            except Exception:
                if not stand_in:
                    raise
            if message["stop"]:
                break
    finally:
        stack[:] = handlers
    return Anticipated(message["value"], message["is_observed"], message["infer"].get("enumerate") == "parallel")


def foreseen(name: str, shape: Sequence[int], like: Tensor, data: Tensor | None = None) -> Anticipated:
    """What handlers will do at a site whose distribution is not known yet. The value is None if they draw it or compute
    it from the distribution: it then differs between two stand-in distributions.

    Args:
        name: the site.
        shape: shape of its values.
        like: a tensor with their dtype and device.
        data: its observed value.
    """
    points = [like.new_full(tuple(shape), point) for point in (1.0, 2.0)] if data is None else [data]
    stand_ins = (dist.Delta(point, validate_args=False).to_event(1) for point in points)
    first, *others = (anticipated(name, stand_in, data, stand_in=True) for stand_in in stand_ins)
    equal = all(same(first.value, other.value) for other in others)
    return first._replace(value=first.value if equal else None)


def same(value: Any, other: Any) -> bool:
    """Whether two values are the same object, or equal tensors."""
    if value is other:
        return True
    both = isinstance(value, Tensor) and isinstance(other, Tensor)
    return both and value.shape == other.shape and bool(torch.equal(value, other))


@effect("prev")
def previous(name: str, value: Tensor, axis: TimeAxis) -> Tensor:
    """Effect: the value of `name` one frame earlier; by default the true one."""
    return value


@effect("conditional")
def conditional(name: str, distribution: dist.TorchDistribution, axis: TimeAxis | None) -> dist.TorchDistribution:
    """Effect: the distribution of site `name` in the frames of `axis`; None for a site outside time.

    By default that of the step.
    """
    return distribution


@effect("draw")
def draw(name: str, distribution: dist.TorchDistribution, axis: TimeAxis | None) -> Tensor:
    """Effect: a value for site `name` in the frames of `axis`; None for a site outside time.

    By default a sample, reparametrised if possible.
    """
    value: Tensor = distribution.rsample() if distribution.has_rsample else distribution.sample()
    return value


def own_draw(
    name: str, distribution: dist.TorchDistribution, axis: Any = None, site: str | None = None
) -> dict[str, Tensor]:
    """A drawn value for a site, by its name; empty if a handler will set or enumerate its value.

    Args:
        name: the latent that the effect ``draw`` is sent for.
        distribution: its distribution.
        axis: the time axis.
        site: the name of the site, if it differs from `name`, as that of a single frame does.
    """
    site = name if site is None else site
    known = anticipated(site, distribution)
    return {} if known.enumerated or known.value is not None else {site: draw(name, distribution, axis)}


@effect("auxiliary")
def auxiliary(name: str, density: Callable[[Tensor], Tensor]) -> None:
    """Effect: an auxiliary log-density of a guide, a function from all frames of latent `name`, (..., T, N, L), to
    (..., T, N). By default it is not evaluated.
    """


@effect("uniform")
def uniform(frames: int, sequences: int, device: device) -> Tensor:
    """Effect: uniform numbers from 0 to 1 for each frame of each sequence, (T, N, 1); by default drawn."""
    return rand(frames, sequences, 1, device=device)


@effect("longest")
def longest(lengths: Tensor) -> int:
    """Effect: the number of frames of a batch; by default that of its longest sequence."""
    return int(lengths.max())


@effect("ragged")
def ragged(lengths: Tensor, frames: int) -> bool:
    """Effect: whether there are sequences shorter than `frames`; by default computed from `lengths`."""
    return bool((lengths != frames).any())


def enclosing_shape(inner: int) -> Size:
    """Sizes of the enclosing plates left of the `inner` rightmost dimensions: the particle dimensions."""
    sizes = {frame.dim: frame.size for frame in get_plates() if frame.dim is not None and frame.dim < -inner}
    return Size([sizes.get(dim, 1) for dim in range(min(sizes, default=-inner), -inner)])


def misplaced(inner: int) -> str | None:
    """The name of an enclosing plate in one of the `inner` rightmost dimensions, which are reserved for the program."""
    names = [frame.name for frame in get_plates() if frame.dim is not None and frame.dim >= -inner]
    return names[0] if names else None


def base_name(site: str) -> str:
    """The name of a site without its frame: ``"z_12"`` is ``"z"``.

    Example:
        >>> base_name("z_12"), base_name("mu2")
        ('z', 'mu2')
    """
    return re.sub(r"_\d+$", "", site)
