"""What every guide is: an encoder that runs over the data beforehand, and a step that draws the latents."""

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
    """What every guide is told.

    Attributes:
        name: the guide's name on the command line.
    """

    name: str = "paper"


class Guide(Program):
    """An inference model q(z | x) as a Pyro guide.

    A subclass gives `encode`, which holds all that does not depend on z, methods for its conditionals, and
    the `step`.

    Class attributes that a subclass sets:
        Settings: its settings, derived from `GuideSettings`.
        stepwise: whether it has a `step`. One that does not fit a step does without, and has `all_frames`.
        auxiliary: weight in training of what it asks a latent for (`models.core.effects.auxiliary`); 0 is nothing.

    Args:
        model: the model whose posterior this is; a guide may share its networks.
    """

    Settings: ClassVar[type[GuideSettings]] = GuideSettings
    stepwise: bool = True
    auxiliary: float = 0.0

    def __init__(self, model: DVAE) -> None:
        super().__init__()
        self.like = model.like  # one made for a model in use is of its type and on its device
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
        """What the conditional of each latent depends on, as in `models.dvae.DVAE.parents`.

        Args:
            settings: the guide's.
            latents: the model's latents, for a guide that serves several models.
        """
        raise NotImplementedError

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        """All that does not depend on the latents of frames, (..., T, N, anything); draws those outside time.

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
        """The step again, as a `Chain` of affine maps and tanh where it is one: its loop over frames is
        then fast.
        """
        return None

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto", rows: SequenceIndex | None = None) -> None:
        """The Pyro guide; arguments as of `models.dvae.DVAE.forward`."""
        sites = batch_sites(self, x, lengths, rows)
        if not self.stepwise:
            if how != "auto":
                raise ValueError(
                    f"how='{how}': this guide has no step, so 'looped' or 'stepwise' say nothing; expected 'auto'"
                )
            self.all_frames(sites, lengths)
            return
        encoded = self.encode(sites, lengths)
        chain = self.chain(encoded)
        fast = None if chain is None else partial(self._run_chain, chain, sites)
        run(lambda t: self.step(t, encoded), sites, how, fast)

    def _run_chain(self, chain: Chain | MemoryChain, sites: Sites) -> None:
        """What `models.core.time_axis.Looped` does with the step, by its chain."""
        standard = normal(*sites.like.new_zeros(2, self.z_dim))
        noise = draw(self.latent, sites.expanded(standard, sites.frames), Parallel(sites))
        z, mean, log_variance = chain.run(noise)
        sites.register(self.latent, normal(mean, log_variance), z)
