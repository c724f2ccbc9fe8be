r"""What a model that looks back at x sees of clean speech, which nobody has observed.

A model such as SRNN or VRNN takes :math:`|s_{t-1}|^2` of clean speech. By default that is its own mean, the variance
:math:`v_{t-1}` (`inference.handlers.free_running`). But given y_{t-1} and all that the variance depends on, s_{t-1} has
a posterior of closed form, and can be drawn from it.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from inference.observation.noise import Noise

__all__ = ["sampled_past"]


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
