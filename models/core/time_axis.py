r"""The time axis: a step is written once and run by one of three interpreters.

The joint density of a DVAE factorises over time (Girin et al., "Dynamical variational autoencoders: a comprehensive
review", 2021),

    p(x, z) = prod_t p(z_t | x_{1:t-1}, z_{1:t-1}) p(x_t | x_{1:t-1}, z_{1:t}),

and a model, or a guide, implements one factor of it as its ``step``, which takes a `TimeAxis`. The interpreters are:

- `Parallel`: all frames in one pass. Past values are shifted tensors, and a recurrent network is one fused call;
  sites ``z``, ``x`` in the plates ``time`` (dim -2) and ``sequences`` (dim -1). For scoring: SVI, importance
  weights.
- `Looped`: a loop over frames, then the same sites with stacked frames, registered once. For guides that need
  z_{t-1} to draw z_t, and free-running models.
- `Markov`: `pyro.markov`, frame by frame; sites ``z_0, x_0, z_1, ...`` in the plate ``sequences``. For
  generation, particle filters, inspection, tests.

Shapes, one legend for the whole project:

- ``T`` frames, ``N`` sequences, ``D`` data dimension (``F`` frequency bins), ``L`` latent dimension, ``H``
  recurrent width, ``...`` leading particle dimensions;
- ``x`` (T, N, D), ``lengths`` (N,) int64, ``mask`` (T, N) bool; latents and what is computed from them
  (..., T, N, L);
- inside a step the frame dimension is always present: its size is T for all frames at once, and 1 frame by frame.
  A network therefore gets (..., T, N, D) under every interpreter.

Frames beyond a sequence's length are zero, masked in the densities and have no effect on gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import pad

from models.core.carry import Carry, Causal, SlowerStep, steps_before
from models.core.effects import Given, Sequential, conditional, draw, own_draw, previous
from models.core.sites import Sites, masked, stacked
from models.core.tensors import concatenate, shift

__all__ = ["Carry", "Causal", "Looped", "Markov", "Parallel", "Sites", "TimeAxis", "run"]

_Draw = tuple[dist.TorchDistribution, Tensor]


class TimeAxis:
    """The argument of a step: the frames ``start .. stop-1``, and the carry from the frames before them."""

    def __init__(self, sites: Sites, start: int, stop: int, carry: Carry) -> None:
        self.sites = sites
        self.start = start
        self.stop = stop
        self.carry = carry
        self._recurrences = 0
        self._slower = 0

    def feature(self, v: Tensor) -> Tensor:
        """The frames of this axis, of a tensor (..., T, N, D) that was computed for all frames beforehand."""
        return v[..., self.start : self.stop, :, :]

    def prev(self, name: str) -> Tensor:
        """The value of a site one frame earlier, zero before the first frame. Handlers can replace it."""
        return previous(name, self._previous(name), self)

    def expected(self, name: str) -> Tensor:
        """The mean of a site's conditional one frame earlier: the model's own output for that frame."""
        raise NotImplementedError

    def recur(self, net: Causal, *inputs: Tensor, lag: bool = False) -> Tensor:
        """Advance a recurrent network by the concatenated inputs; returns its outputs (..., T, N, H).

        With `lag` the inputs are those of the previous frame. The first frame has none: there the network is not run,
        and the output is zero.
        """
        u = concatenate(*inputs)
        index = self._recurrences
        self._recurrences += 1
        if lag and self.start == 0:
            rest = u[..., 1:, :, :]
            if rest.shape[-3] == 0:
                return u.new_zeros(*u.shape[:-1], net.out_dim)
            out, self.carry.states[index] = net(rest, None)
            return pad(out, (0, 0, 0, 0, 1, 0))
        out, self.carry.states[index] = net(u, self.carry.states.get(index))
        return out

    def slower(
        self, stride: int, step: Callable[[TimeAxis, Tensor | None], Tensor], before: Tensor | None = None
    ) -> Tensor:
        """Run a step on a slower axis, with one step per `stride` frames of this one; returns features of these frames,
        (..., T, N, C').

        Args:
            stride: frames per step, s.
            step: a function of the slower axis and the concatenated features of the s frames before each of its T'
                steps, (..., T', N, s C), zero before the first frame; returns features of the s frames of each step,
                (..., s T', N, C'). It is called once for each step, before the frames of the step.
            before: features of the frame before each of these frames, (..., T, N, C), such as those of `prev`; None
                if `step` takes none.
        """
        raise NotImplementedError

    def once(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        """A sequence-level site (v, w): one draw per sequence, outside time."""
        return self.sites.once(name, distribution)

    def shared(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        """A site of a whole sequence that its segments share (mu2): one draw per sequence, expanded to its segments."""
        return self.sites.shared(name, distribution)

    def sample(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        """A latent site. Handlers can replace its distribution."""
        return self._site(name, conditional(name, distribution, self))

    def observe(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        """An observed site; generated where there is no data. Handlers can replace its distribution."""
        return self._site(name, conditional(name, distribution, self))

    def _site(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        raise NotImplementedError

    def _previous(self, name: str) -> Tensor:
        raise NotImplementedError


class Parallel(TimeAxis):
    """All frames in one pass. Raises `Sequential` where a frame depends on a value that is not drawn yet."""

    def __init__(self, sites: Sites) -> None:
        super().__init__(sites, 0, sites.frames, Carry())

    def _previous(self, name: str) -> Tensor:
        value = self.sites.value(name)
        if value is None:
            raise Sequential(name)
        return shift(value)

    def expected(self, name: str) -> Tensor:
        raise Sequential(name)

    def slower(
        self, stride: int, step: Callable[[TimeAxis, Tensor | None], Tensor], before: Tensor | None = None
    ) -> Tensor:
        axis, frames = Parallel(self.sites.coarser(stride * self.sites.stride)), self.sites.frames
        return step(axis, None if before is None else steps_before(before, stride, axis.stop))[..., :frames, :, :]

    def _site(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return self.sites.register(name, distribution, axis=self)


class Frame(TimeAxis):
    """One frame, with the carry of the frames before it."""

    def _previous(self, name: str) -> Tensor:
        return self._zero(name) if self.start == 0 else self.carry.values[name]

    def expected(self, name: str) -> Tensor:
        if self.start == 0:
            return self._zero(name)
        mean: Tensor = self.carry.conditionals[name].mean
        return mean

    def slower(
        self, stride: int, step: Callable[[TimeAxis, Tensor | None], Tensor], before: Tensor | None = None
    ) -> Tensor:
        slower_step = self.carry.slower.setdefault(self._slower, SlowerStep())
        self._slower += 1
        slower_step.remember(before, stride)
        if self.start % stride == 0:
            axis = self._at(self.sites.coarser(stride * self.sites.stride), self.start // stride, slower_step.carry)
            slower_step.output = step(axis, slower_step.frames_before(stride))
        return slower_step.frame(self.start % stride)

    def _at(self, sites: Sites, step: int, carry: Carry) -> TimeAxis:
        """A step of a slower axis."""
        raise NotImplementedError

    def _zero(self, name: str) -> Tensor:
        return self.sites.like.new_zeros(1, self.sites.sequences, self.sites.sizes[name])

    def _keep(self, name: str, distribution: dist.TorchDistribution, value: Tensor) -> Tensor:
        self.carry.values[name] = value
        self.carry.conditionals[name] = distribution
        return value


class Looped(Frame):
    """One frame of a loop without sample statements: `Looped.run` registers the stacked sites afterwards."""

    def __init__(self, sites: Sites, t: int, carry: Carry, seen: dict[str, tuple[Sites, list[_Draw]]]) -> None:
        super().__init__(sites, t, t + 1, carry)
        self.seen = seen

    def _site(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        settled = self.sites.value(name)
        expanded = self.sites.expanded(distribution, 1)
        value = draw(name, expanded, self) if settled is None else self.feature(settled)
        self.seen.setdefault(name, (self.sites, []))[1].append((expanded, value))
        return self._keep(name, distribution, value)

    def _at(self, sites: Sites, step: int, carry: Carry) -> TimeAxis:
        return type(self)(sites, step, carry, self.seen)

    @classmethod
    def run(cls, step: Callable[[TimeAxis], None], sites: Sites) -> None:
        """Run `step` frame by frame, then register every site once, its frames stacked."""
        carry = Carry()
        seen: dict[str, tuple[Sites, list[_Draw]]] = {}
        for t in range(sites.frames):
            step(cls(sites, t, carry, seen))
        for name, (own, draws) in seen.items():
            if name not in own.registered:
                value = own.value(name)
                if value is None:
                    value = torch.cat([v for _, v in draws], dim=-3)
                own.register(name, stacked([d for d, _ in draws]), value)


class Markov(Frame):
    """One frame with its own sample sites ``name_t``, in the order of the generative process."""

    def __init__(self, sites: Sites, t: int, carry: Carry) -> None:
        super().__init__(sites, t, t + 1, carry)

    def _site(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        site = f"{name}_{self.start}"
        mask = None if self.sites.mask is None else self.feature(self.sites.mask[..., None])[..., 0]
        data = self.feature(self.sites.data[name]) if name in self.sites.data else None
        distribution = self.sites.expanded(distribution, 1)
        drawn = own_draw(name, distribution, self, site) if data is None else {}
        with self.sites.plates[0], Given(drawn):
            value: Tensor = pyro.sample(site, masked(distribution, mask), obs=data)
        if name in self.sites.frames_of:
            self.sites.frames_of[name].append((value, value is data))
        return self._keep(name, distribution, value)

    def _at(self, sites: Sites, step: int, carry: Carry) -> TimeAxis:
        return type(self)(sites, step, carry)

    @classmethod
    def run(cls, step: Callable[[TimeAxis], None], sites: Sites) -> None:
        """Run `step` frame by frame under `pyro.markov`."""
        carry = Carry()
        for t in pyro.markov(range(sites.frames)):
            step(cls(sites, t, carry))


def run(
    step: Callable[[TimeAxis], None], sites: Sites, how: str = "auto", loop: Callable[[], None] | None = None
) -> None:
    """Run a step over all frames: in one pass if possible, else looped; or frame by frame.

    Args:
        step: the step of a model or guide.
        sites: the batch.
        loop: a faster implementation of `Looped` for this step, if there is one.
        how: ``"auto"`` (`Parallel`, or `Looped` where a handler or an undrawn latent requires it),
            ``"looped"`` or ``"stepwise"`` (`Markov`).

    Raises:
        ValueError: for any other `how`.
    """
    sites.step = step
    if how == "stepwise":
        Markov.run(step, sites)
    elif how == "looped":
        Looped.run(step, sites)
    elif how == "auto":
        try:
            step(Parallel(sites))
        except Sequential:
            Looped.run(step, sites) if loop is None else loop()
    else:
        raise ValueError(f"how='{how}': expected 'auto', 'looped' or 'stepwise'")
