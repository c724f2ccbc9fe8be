"""Handlers around a model, a guide or an objective: what papers change about them, as poutines that compose.

Each handler is a Pyro messenger: ``with kl_scale(0.1): loss = objective(x, lengths)``. Under every
interpreter of the time axis they act alike: a site ``z_12`` of the frame-by-frame form is the site ``z``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from models.effects import uniform
from models.networks import shift
from models.sites import Sites, rebuilt
from models.teacher import teach

__all__ = [
    "auxiliary_cost",
    "base_name",
    "free_running",
    "given_noise",
    "kl_scale",
    "mean_latents",
    "scheduled_sampling",
]


def base_name(site: str) -> str:
    """The name of a site without its frame: ``"z_12"`` is ``"z"``.

    Example:
        >>> base_name("z_12"), base_name("mu2")
        ('z', 'mu2')
    """
    return re.sub(r"_\d+$", "", site)


class kl_scale(Messenger):
    """Multiply the weight of latent sites by `beta`, in model and guide: beta times their KL in the
    objective.

    .. math:: E_q[\\log p(x | z)] - \\beta\\, KL(q(z | x), p(z))

    (Higgins et al., "beta-VAE", 2017.) Zero is allowed. What `inference.objectives.Bound` reports as the
    bound and as KLs is never scaled.

    Args:
        beta: the weight; a tensor is not looked at.
        sites: names of the latents that it holds for; all of them by default.
        own: weights of single latents by name, in beta's place.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(
        self,
        beta: float | Tensor,
        sites: Sequence[str] | None = None,
        own: Mapping[str, float | Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.own = own or {}
        for weight in (beta, *self.own.values()):
            if not isinstance(weight, Tensor) and not weight >= 0.0:
                raise ValueError(f"beta = {weight}: expected a weight of at least 0")
        self.beta = beta
        self.sites = sites

    def _pyro_sample(self, msg: Any) -> None:
        name = base_name(msg["name"])
        if not msg["is_observed"] and (self.sites is None or name in self.sites):
            msg["scale"] = msg["scale"] * self.own.get(name, self.beta)


class auxiliary_cost(Messenger):
    r"""Add what a guide asks a latent for to the objective, times `weight`: a factor after the model's site.

    The guide says what by `models.effects.auxiliary`; of Z-Forcing it is :math:`\sum_t \log p(b_t | z_t)`. The bound
    that is reported beside the objective does not hold the factor.

    Args:
        weight: alpha; 0 adds nothing.

    Raises:
        ValueError: for a negative weight; and where the model has no site of all frames that could be asked.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not weight >= 0.0:
            raise ValueError(f"weight = {weight}: expected at least 0")
        self.weight = weight
        self._asked: dict[str, Any] = {}
        self._drawn: set[str] = set()

    def __exit__(self, *args: Any) -> None:
        left, self._asked, self._drawn = [*self._asked], {}, set()
        super().__exit__(*args)
        if left and args[0] is None:
            raise ValueError(
                f"the model had no site of all frames of {left} to ask: run it with how='auto' or 'looped'"
            )

    def _pyro_auxiliary(self, msg: Any) -> None:
        name, density = msg["args"]
        if self.weight > 0.0:
            self._asked[name] = density

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._asked and name not in self._drawn:  # the guide's own
            self._drawn.add(name)
        elif name in self._asked:
            density = self._asked.pop(name)
            with poutine.scale(scale=self.weight):
                pyro.factor("auxiliary", density(msg["value"]))


class mean_latents(Messenger):
    """Give every latent that would be drawn the mean of its conditional, and let what follows from it see the mean.

    Args:
        sites: names of those that this holds for; all of them by default. Without data x is one of them.
    """

    def __init__(self, sites: Sequence[str] | None = None) -> None:
        super().__init__()
        self.sites = sites

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, _ = msg["args"]
        if self.sites is None or name in self.sites:
            msg["value"] = distribution.mean
            msg["done"] = True


class given_noise(Messenger):
    """Draw Gaussian latents from noise handed in: z = mean + standard deviation * noise.

    Args:
        noise: for each site standard normal numbers (..., T, N, L), or (..., N, L) for a sequence-level site.
    """

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]
        if name in self.noise:
            noise = self.noise[name]
            frames = noise if axis is None else axis.feature(noise)
            msg["value"] = distribution.mean + distribution.variance.sqrt() * frames
            msg["done"] = True


class free_running(Messenger):
    """Generation mode: where a conditional looks back at the data, let it see the mean that the model gave
    that frame.

    Given the latents these means are functions of them, so this is a model of its own, whose bound is a bound.

    Args:
        sites: names of the observed sites that this holds for.
        stop_gradient: whether no gradient flows back through that mean, as published.
    """

    def __init__(self, sites: Sequence[str] = ("x",), *, stop_gradient: bool = True) -> None:
        super().__init__()
        self.sites = sites
        self.stop_gradient = stop_gradient

    def _pyro_prev(self, msg: Any) -> None:
        name, _, axis = msg["args"]
        if name in self.sites:
            own = axis.expected(name)
            msg["value"] = own.detach() if self.stop_gradient else own
            msg["done"] = True


class _Pass(NamedTuple):
    """What scheduled sampling holds during one run of a model over a batch.

    Attributes:
        batch: the run's.
        coins: c_t, (T, N, 1) or (T, 1, 1) bool.
        taught: the conditionals of all frames given the true past, where they are needed.
        own_past: where `taught` is also what is fed back, its mean one frame earlier, (..., T, N, D), by site name.
    """

    batch: Sites
    coins: Tensor
    taught: Mapping[str, dist.TorchDistribution]
    own_past: Mapping[str, Tensor]


class scheduled_sampling(Messenger):
    r"""Scheduled sampling (Bengio et al., 2015): now the true past, now the model's own output.

    With c_t = 1 with probability p, and \hat x_t = sg(E[x_t]) the mean that the model gave frame t (sg: no gradient),
    a conditional that looks back at the data sees, with `mix` = ``"x"``,

    .. math:: c_t \hat x_{t-1} + (1 - c_t) x_{t-1}

    in place of x_{t-1}: p = 0 is teacher forcing, p = 1 is `free_running`, with the very same numbers. With `mix` =
    ``"h"``, the scheme of the public SRNN code, the recurrent state is always run on the model's own output, and so is
    the prior; but x_t is decoded from it where c_t = 1, and where c_t = 0 from the state that has seen the true past.
    There p = 0 is not teacher forcing: the prior does not see the data.

    Args:
        p: the probability of the model's own output in a frame.
        mix: what is mixed, ``"x"`` or ``"h"``.
        coin: one c_t per ``"sequence"`` and frame, or per frame for the whole ``"batch"``, as published (which makes
            the gradient noisier). It comes from torch's generator, and none is drawn at p = 0 and 1.
        sites: names of the observed sites that this holds for.

    Raises:
        ValueError: for a p that is no probability, or another word.
    """

    def __init__(
        self,
        p: float,
        *,
        mix: str = "x",
        coin: str = "sequence",
        sites: Sequence[str] = ("x",),
    ) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p = {p}: expected a probability, 0 to 1")
        for word, choices in ((mix, ("x", "h")), (coin, ("sequence", "batch"))):
            if word not in choices:
                raise ValueError(f"'{word}': expected {' or '.join(choices)}")
        self.p = p
        self.mix = mix if p < 1.0 else "x"  # which is the same there, and needs no teacher
        self.all_taught = mix == "h" and p == 0.0  # every x_t is then decoded from the teacher's state
        self.coin = coin
        self.sites = sites
        self._pass: _Pass | None = None

    def __exit__(self, *args: Any) -> None:
        self._pass = None
        super().__exit__(*args)

    def _pyro_prev(self, msg: Any) -> None:
        name, true, axis = msg["args"]
        if name not in self.sites or (self.mix == "x" and self.p == 0.0):
            return
        if self._pass is None or self._pass.batch is not axis.sites:
            self._pass = self._begin(axis.sites)
        own = axis.feature(self._pass.own_past[name]) if self.all_taught else axis.expected(name).detach()
        if self.mix == "x":
            own = torch.where(axis.feature(self._pass.coins), own, true)
        msg["value"] = own
        msg["done"] = True

    def _pyro_conditional(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]
        if name in self.sites and self.mix == "h" and self._pass is not None and self._pass.batch is axis.sites:
            coins = axis.feature(self._pass.coins)
            pair = (distribution, self._pass.taught[name])
            msg["value"] = rebuilt(pair, lambda v: torch.where(coins, v[0], axis.feature(v[1])))
            msg["done"] = True

    def _begin(self, batch: Sites) -> _Pass:
        device, shape = batch.like.device, (batch.frames, batch.sequences if self.coin == "sequence" else 1, 1)
        if not 0.0 < self.p < 1.0:
            coins = torch.full(shape, self.p == 1.0, device=device)
        elif self.coin == "sequence":
            coins = uniform(batch.frames, batch.sequences, device) < self.p
        else:
            coins = torch.rand(shape, device=device) < self.p
        taught: Mapping[str, dist.TorchDistribution] = {}
        if self.mix == "h":
            taught = teach(batch)
        means = {name: taught[name].mean.detach() for name in self.sites if name in taught}
        return _Pass(batch, coins, taught, {name: shift(mean) for name, mean in means.items()})
