r"""Past frames of clean speech for models that depend on them, where clean speech is not observed.

A model such as SRNN or VRNN takes :math:`|s_{t-1}|^2` of clean speech as input. By default its own mean is used, the
variance :math:`v_{t-1}` (`inference.handlers.free_running`). Alternatively s_{t-1} is drawn: given y_{t-1} and
everything that the variance depends on, its posterior has a closed form.
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
    """`free_running` in two passes where all latents have values: the same numbers and gradients with a much smaller
    autograd graph.

    No gradient flows through the means, so they can be computed first, in a loop over frames without gradients that
    other handlers do not see; then all frames run at once, with the means in place of data.
    """

    def __init__(self) -> None:
        super().__init__()
        self._means: tuple[Sites, Tensor] | None = None

    def __exit__(self, *args: Any) -> None:
        self._means = None
        super().__exit__(*args)

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name not in self.sites or not isinstance(axis, Parallel) or axis.sites.step is None:
            super()._pyro_prev(msg)
            return
        if self._means is None or self._means[0] is not axis.sites:
            means = _Silent.means(axis.sites, name)
            if means is None:  # some latent has no value yet: it is drawn frame by frame
                super()._pyro_prev(msg)
                return
            self._means = axis.sites, means
        msg["value"], msg["done"] = shift(self._means[1]), True


class _Unsettled(Exception):
    """A latent has no value yet."""


class _Silent(Frame):
    """A frame whose latents have values and whose past is the model's own means. It registers no site, so handlers do
    not see it.
    """

    @classmethod
    @torch.no_grad()
    def means(cls, sites: Sites, name: str) -> Tensor | None:
        """The model's means (..., T, N, D) of site `name`; None if a latent has no value."""
        assert sites.step is not None
        carry, means = Carry(), []
        try:
            for t in range(sites.frames):
                sites.step(cls(sites, t, t + 1, carry))
                means.append(carry.conditionals[name].mean)
        except _Unsettled:
            return None
        return torch.cat(means, dim=-3)

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
    r"""Draw past frames of clean speech from their filtering posterior, inside the loop over frames.

    .. math:: \sqrt{g} s_{t-1} \mid y_{1:t-1}, z_{1:t-1}, s_{1:t-2} \sim
        N_c\Big(\frac{g v}{g v + n}\, y_{t-1},\; \frac{g v\, n}{g v + n}\Big)

    The posterior is invariant to a common phase of y and s, so |s|^2 can be drawn from |y| alone. With these draws of
    s, :math:`E[\sum_t \log p(y_t \mid s_{1:t-1}, z)] - KL` is a lower bound on log p(y): by Jensen's inequality the
    first term is at most log p(y | z).

    Args:
        observation: the model of noise and gain.
    """

    def __init__(self, observation: Noise) -> None:
        super().__init__()
        self.observation = observation

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name != "x":
            return
        v = axis.expected(name).detach()  # raises an error where frames are not run one by one
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
