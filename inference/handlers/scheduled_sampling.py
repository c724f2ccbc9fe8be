r"""Scheduled sampling: a model fed the true past or its own output by chance, as a poutine."""

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
    """What scheduled sampling holds during one run of a model over a batch.

    Attributes:
        batch: the run's.
        coins: c_t, (T, N, 1) or (T, 1, 1) bool.
        taught: the conditionals of all frames given the true past, where they are needed.
        own_past: where `teacher_forced` is also what is fed back, its mean one frame earlier, (..., T, N, D), by site
            name.
    """

    batch: Sites
    coins: Tensor
    teacher_forced: Mapping[str, dist.TorchDistribution]
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
        self.all_teacher_forced = mix == "h" and p == 0.0  # every x_t is then decoded from the teacher's state
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
        own = axis.feature(self._pass.own_past[name]) if self.all_teacher_forced else axis.expected(name).detach()
        if self.mix == "x":
            own = torch.where(axis.feature(self._pass.coins), own, true)
        msg["value"] = own
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
