r"""Scheduled sampling: each frame is given the true past or the model's own output at random, as a poutine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from models.core.effects import uniform
from models.core.sites import Sites, rebuilt
from models.core.teacher_forcing import teacher_forced as teacher_forced_conditionals
from models.core.tensors import shift

__all__ = ["scheduled_sampling"]


class _Pass(NamedTuple):
    """The state of scheduled sampling during one run of a model over a batch.

    Attributes:
        batch: the sites of that run.
        coins: c_t, (T, N, 1) or (T, 1, 1) bool.
        teacher_forced: the conditionals of all frames given the true past, with mix ``"h"``.
        own_past: the means of `teacher_forced` one frame earlier, (..., T, N, D), by site name.
    """

    batch: Sites
    coins: Tensor
    teacher_forced: Mapping[str, dist.TorchDistribution]
    own_past: Mapping[str, Tensor]


class scheduled_sampling(Messenger):
    r"""Scheduled sampling (Bengio et al., 2015): a random mixture of the true past and the model's own output.

    With c_t = 1 with probability p, and \hat x_t = sg(E[x_t]) the model's mean of frame t (sg: stop-gradient), a
    conditional on past data is given, with `mix` = ``"x"``,

    .. math:: c_t \hat x_{t-1} + (1 - c_t) x_{t-1}

    in place of x_{t-1}: p = 0 is teacher forcing, and p = 1 equals `free_running` exactly. With `mix` = ``"h"``, the
    scheme of the public SRNN code, recurrent state and prior always depend on the model's own output; x_t is decoded
    from that state where c_t = 1, and from the teacher-forced state where c_t = 0. There p = 0 is not teacher forcing:
    the prior does not depend on the data.

    Args:
        p: the probability of the model's own output in a frame.
        mix: what is mixed, ``"x"`` or ``"h"``.
        coin: one c_t per ``"sequence"`` and frame, or one per frame for the whole ``"batch"``, as in the public code
            (which makes the gradient noisier). Coins are drawn from torch's generator, except at p = 0 and 1.
        sites: names of the observed sites that are mixed.

    Raises:
        ValueError: for a p outside 0 to 1, or another `mix` or `coin`.
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
        self.mix = mix if p < 1.0 else "x"  # equal at p = 1, and "x" needs no teacher-forced conditionals
        self.all_teacher_forced = mix == "h" and p == 0.0  # every x_t is decoded from the teacher-forced state
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
        past = axis.feature(self._pass.own_past[name]) if self.all_teacher_forced else axis.expected(name).detach()
        if self.mix == "x":
            past = torch.where(axis.feature(self._pass.coins), past, true)
        msg["value"] = past
        msg["done"] = True

    def _pyro_conditional(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]
        if name in self.sites and self.mix == "h" and self._pass is not None and self._pass.batch is axis.sites:
            coins = axis.feature(self._pass.coins)
            pair = (distribution, self._pass.teacher_forced[name])
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
        teacher_forced: Mapping[str, dist.TorchDistribution] = {}
        if self.mix == "h":
            teacher_forced = teacher_forced_conditionals(batch)
        means = {name: teacher_forced[name].mean.detach() for name in self.sites if name in teacher_forced}
        return _Pass(batch, coins, teacher_forced, {name: shift(mean) for name, mean in means.items()})
