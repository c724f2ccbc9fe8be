r"""What a model that looks back at x sees of clean speech, which nobody has observed.

A model such as SRNN or VRNN takes :math:`|s_{t-1}|^2` of clean speech. By default that is its own mean, the variance
:math:`v_{t-1}` (`inference.handlers.free_running`). But given y_{t-1} and all that the variance depends on, s_{t-1} has
a posterior of closed form, and can be drawn from it.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.handlers.free_running import free_running
from inference.observation.noise import Noise
from models.core.sites import Sites
from models.core.tensors import shift
from models.core.time_axis import Carry, Frame, Parallel

__all__ = ["own_past", "sampled_past"]


class own_past(free_running):
    """`free_running` in two passes where latents are known: the same numbers and gradients from far fewer nodes of a
    graph.

    As no gradient flows through the means, they may as well be computed first: a loop over frames, silent and without
    graph, gives them; then all frames run at once, as if the means were data.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of: tuple[Sites, Tensor] | None = None

    def __exit__(self, *args: Any) -> None:
        self._of = None
        super().__exit__(*args)

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name not in self.sites or not isinstance(axis, Parallel) or axis.sites.step is None:
            super()._pyro_prev(msg)
            return
        if self._of is None or self._of[0] is not axis.sites:
            means = _Silent.means(axis.sites, name)
            if means is None:  # some latent is still to be drawn, frame by frame
                super()._pyro_prev(msg)
                return
            self._of = axis.sites, means
        msg["value"], msg["done"] = shift(self._of[1]), True


class _Unsettled(Exception):
    """A latent has no value yet."""


class _Silent(Frame):
    """A frame with settled latents that is fed the model's own means, unseen by handlers; nothing is registered."""

    @classmethod
    @torch.no_grad()
    def means(cls, sites: Sites, name: str) -> Tensor | None:
        """The means (..., T, N, D) that the model gives site `name`; None where a latent is not settled."""
        assert sites.step is not None
        carry, found = Carry(), []
        try:
            for t in range(sites.frames):
                sites.step(cls(sites, t, t + 1, carry))
                found.append(carry.conditionals[name].mean)
        except _Unsettled:
            return None
        return torch.cat(found, dim=-3)

    def prev(self, name: str) -> Tensor:
        return self.expected(name) if name in self.sites.data else self._previous(name)

    def once(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return self._settled(name)

    def sample(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return self._keep(name, distribution, self.feature(self._settled(name)))

    def observe(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return self._keep(name, distribution, distribution.mean)

    def _settled(self, name: str) -> Tensor:
        value = self.sites.value(name)
        if value is None:
            raise _Unsettled
        return value


class sampled_past(Messenger):
    r"""Let a model look back at clean speech drawn from its filtering posterior, inside of the loop over frames.

    .. math:: \sqrt{g} s_{t-1} \mid y_{1:t-1}, z_{1:t-1}, s_{1:t-2} \sim
        N_c\Big(\frac{g v}{g v + n}\, y_{t-1},\; \frac{g v\, n}{g v + n}\Big)

    The posterior does not change when y and s turn by the same phase, so |s|^2 can be drawn from |y| alone. With
    s drawn so, :math:`E[\sum_t \log p(y_t \mid s_{1:t-1}, z)] - KL` is a bound on log p(y): by Jensen's inequality the
    first term is at most log p(y | z).

    Args:
        observation: the noise that speech is in, and the gain.
    """

    def __init__(self, observation: Noise) -> None:
        super().__init__()
        self.observation = observation

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name != "x":
            return
        v = axis.expected(name).detach()  # where frames are not run one by one it says so
        msg["done"] = True
        if axis.start == 0:
            msg["value"] = v
            return
        before = slice(axis.start - 1, axis.start)
        here = self.observation.parameters.of(before)
        g, n = here.gains()[0], here.variance() + self.observation.floor
        wiener = g * v / (g * v + n)
        mean, variance = wiener * axis.sites.data[name][before].sqrt(), wiener * n
        real, imaginary = (torch.randn_like(v) * (0.5 * variance).sqrt() for _ in range(2))
        power = (mean + real).square() + imaginary.square()
        msg["value"] = power / g.clamp_min(torch.finfo(g.dtype).tiny)
