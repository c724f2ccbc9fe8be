"""The base class of guides: an encoder over the data, and a step that draws the latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from guides.core.chain import Chain, MemoryChain
from models.core.effects import draw
from models.core.grouping import SequenceIndex
from models.core.program import Program
from models.core.sites import Sites
from models.core.tensors import normal
from models.core.time_axis import Parallel, TimeAxis, run
from models.dvae import DVAE, batch_sites
from models.structure.parents import Parents

__all__ = ["Guide", "GuideSettings"]


@dataclass
class GuideSettings:
    """Settings of every guide.

    Attributes:
        name: the guide's name on the command line.
    """

    name: str = "paper"


class Guide(Program):
    """An inference model q(z | x) as a Pyro guide.

    A subclass defines `encode`, which computes everything that does not depend on z, methods for its conditionals, and
    `step`.

    Class attributes that a subclass sets:
        Settings: its settings, derived from `GuideSettings`.
        declared: the variables that the conditional of each latent depends on, as in `models.dvae.DVAE`; `parents` if
            they depend on settings.
        stepwise: whether it has a `step`; a guide without one has `all_frames`.
        auxiliary: weight of its auxiliary cost in training (`models.core.effects.auxiliary`); 0 disables it.

    Args:
        model: the model whose posterior is approximated; a guide may share its networks.
    """

    Settings: ClassVar[type[GuideSettings]] = GuideSettings
    declared: ClassVar[Parents]
    stepwise: bool = True
    auxiliary: float = 0.0

    def __init__(self, model: DVAE) -> None:
        super().__init__()
        self.like = model.like.clone()  # a guide of an existing model has its dtype and device
        self.x_dim = model.x_dim
        self.latent = model.frame_latent
        self.z_dim = model.sizes.get(self.latent, model.z_dim)
        self.sizes = model.sizes
        self.input = model.input
        self.scaling = model.scaling
        self.hierarchical = model.hierarchical
        self.segment = model.segment

    @classmethod
    def parents(cls, settings: Any, latents: Sequence[str] = ("z",)) -> Parents:
        """The variables that the conditional of each latent depends on, for a guide where that depends on settings.

        Args:
            settings: the guide's settings.
            latents: names of the model's latents, for a guide that fits several models.
        """
        return cls.declared

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        """Features that do not depend on latents in time, (..., T, N, anything); draws the latents outside time.

        The data are ``sites.data["x"]`` (T, N, D), zero beyond each length.
        """
        raise NotImplementedError

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        """Draw the latents of the frames of `t`."""
        raise NotImplementedError

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        """Draw all latents at once, for a guide that is not `stepwise`."""
        raise NotImplementedError

    def chain(self, encoded: Tensor) -> Chain | MemoryChain | None:
        """The step as a `Chain` of affine maps and tanh, if it is one: its loop over frames is then fast."""
        return None

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto", rows: SequenceIndex | None = None) -> None:
        """The Pyro guide; arguments as of `models.dvae.DVAE.forward`."""
        sites = batch_sites(self, x, lengths, rows)
        if not self.stepwise:
            if how != "auto":
                raise ValueError(
                    f"how='{how}': this guide has no step, so 'looped' and 'stepwise' have no effect; expected 'auto'"
                )
            self.all_frames(sites, lengths)
            return
        encoded = self.encode(sites, lengths)
        chain = self.chain(encoded)
        fast = None if chain is None else partial(self._run_chain, chain, sites)
        run(lambda t: self.step(t, encoded), sites, how, fast)

    def _run_chain(self, chain: Chain | MemoryChain, sites: Sites) -> None:
        """The equivalent of `models.core.time_axis.Looped` for a step given as a chain."""
        standard = normal(*sites.like.new_zeros(2, self.z_dim))
        noise = draw(self.latent, sites.expanded(standard, sites.frames), Parallel(sites))
        z, mean, log_variance = chain.run(noise)
        sites.register(self.latent, normal(mean, log_variance), z)
