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
  elsewhere (the same handler), or a caller knows it without a look
  (`inference.training.recorded_step.known_shape`).

and one question is asked of the stack: `anticipated`, what handlers are going to do at a sample site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Anticipated(NamedTuple):
    """What the handlers in force are going to do at a sample site.

    Attributes:
        value: the value that they give it; None: it is to be drawn.
        observed: whether it counts as observed.
        enumerated: whether its values are enumerated.
    """

    value: Any
    observed: bool
    enumerated: bool


def anticipated(
    name: str, distribution: dist.TorchDistribution, data: Tensor | None = None, *, stand_in: bool = False
) -> Anticipated:
    """Ask the handlers in force beforehand what they are going to do at sample site `name`.

    Pyro has no such question. So each handler processes a message of our own, as `pyro.poutine.runtime.apply_stack`
    would have it do, but nothing is drawn, recorded or sent on: what a handler sends meanwhile reaches nobody, as the
    stack is empty. What comes of it is compared with the real site, see `models.core.sites.Sites.register`.

    Args:
        name: the site.
        distribution: its distribution.
        data: what is observed there.
        stand_in: whether the distribution only stands in for one that there is not yet: handlers that cannot make
            anything of it are passed over.
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
            if isinstance(handler, MarkovMessenger | EnumMessenger):  # they keep account of sites, and set none itself
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
    """What handlers are going to do at a site that has no distribution yet. The value is None where they draw it, or
    compute it from the distribution: of two that stand in for it they make two values.

    Args:
        name: the site.
        shape: of its values.
        like: a tensor of their type and on their device.
        data: what is observed there.
    """
    points = [like.new_full(tuple(shape), point) for point in (1.0, 2.0)] if data is None else [data]
    stand_ins = (dist.Delta(point, validate_args=False).to_event(1) for point in points)
    found, *more = (anticipated(name, stand_in, data, stand_in=True) for stand_in in stand_ins)
    alike = all(same(found.value, other.value) for other in more)
    return found._replace(value=found.value if alike else None)


def same(value: Any, other: Any) -> bool:
    """Whether two values are the same tensor, or equal ones."""
    if value is other:
        return True
    both = isinstance(value, Tensor) and isinstance(other, Tensor)
    return both and value.shape == other.shape and bool(torch.equal(value, other))


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


def own_draw(
    name: str, distribution: dist.TorchDistribution, axis: Any = None, site: str | None = None
) -> dict[str, Tensor]:
    """A value for a site, by its name, unless a handler is going to give it one, or all of them.

    Args:
        name: the latent that the effect ``draw`` is sent for.
        distribution: its distribution.
        axis: the frames.
        site: the name of the site where it is another one, that of a frame.
    """
    site = name if site is None else site
    known = anticipated(site, distribution)
    return {} if known.enumerated or known.value is not None else {site: draw(name, distribution, axis)}


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


def misplaced(inner: int) -> str | None:
    """The name of an enclosing plate in one of the `inner` rightmost dimensions, which are a program's own."""
    names = [frame.name for frame in get_plates() if frame.dim is not None and frame.dim >= -inner]
    return names[0] if names else None


def base_name(site: str) -> str:
    """The name of a site without its frame: ``"z_12"`` is ``"z"``.

    Example:
        >>> base_name("z_12"), base_name("mu2")
        ('z', 'mu2')
    """
    return re.sub(r"_\d+$", "", site)
