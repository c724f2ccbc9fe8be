r"""Mixtures of several sources, each a DVAE with its own latents: :math:`y = \sum_k \sqrt{g_k}\, s_k + n`.

.. math:: s_{k,ft} \mid z_k \sim N_c(0, v_{k,ft}(z_k)), \qquad
    |y_{ft}|^2 \mid z_1, \dots \sim \mathrm{Exp}\Big(\sum_k g_{kt} v_{k,ft} + n_{ft}\Big)

The program of a mixture runs the priors one after the other, each under a name scope: the latents are ``s0_z``,
``s1_z``, and so on. The site x of a source is hidden and only its distribution is used; there is one site ``x`` for y.
A mixture is a model like any other, so every observation and every guide works with it (Lin, Leglaive, Girin &
Alameda-Pineda, "Mixture of dynamical variational autoencoders for multi-source trajectory modeling and separation",
2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dvae_pyro.errors import UserError
from guides.core.guide import Guide
from inference.observation.base import ObservedPower, clean_variances
from models.core.effects import Scope
from models.core.grouping import SequenceIndex
from models.core.program import Program
from models.core.sites import Sites
from models.dvae import DVAE
from models.nn.inputs import InputTransform

__all__ = ["Mixture", "MixtureGuide"]


class _Source(Scope):
    """The scope of a source: its latents get a prefix, its site x is hidden and its distribution stored.

    Attributes:
        emission: the distribution of x.
    """

    emission: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x" and msg["is_observed"]:
            self.emission = msg["fn"]
            msg["stop"] = True
        else:
            super()._pyro_sample(msg)


class Mixture(DVAE):
    """Several priors as one model of their sum y.

    Args:
        sources: the priors, with the same front end.

    Raises:
        UserError: for priors with different numbers of bins, or models of segments.
    """

    stepwise = False

    def __init__(self, sources: Sequence[DVAE]) -> None:
        Program.__init__(self)  # a mixture has no networks of its own
        bins = {source.x_dim for source in sources}
        if len(bins) > 1 or any(source.hierarchical or source.segment is not None for source in sources):
            raise UserError(
                f"priors of a mixture have {sorted(bins)} bins: expected the same number, and models of whole "
                "sequences. Train them with the same data.rate, data.window and data.hop."
            )
        self.sources = nn.ModuleList(sources)
        self.x_dim, self.z_dim = sources[0].x_dim, sources[0].z_dim
        self.input = InputTransform("raw", self.x_dim)
        self.scaling = InputTransform("raw", self.x_dim)
        self.latents = tuple(f"s{k}_{name}" for k, source in enumerate(sources) for name in source.latents)

    def forward(
        self, x: Tensor | None, lengths: Tensor, how: str = "auto", rows: SequenceIndex | None = None
    ) -> Tensor:
        """The Pyro model of y (T, N, F)."""
        signals: list[Tensor] = []
        for k, source in enumerate(self.sources):
            with _Source(f"s{k}_") as scope:
                source(x, lengths, how)
            signals += clean_variances(scope.emission)[0]
        sites = Sites({"x": x}, lengths, self.sizes, signals[0])
        assert x is not None
        sites.register("x", ObservedPower(signals, 0.0), sites.data["x"])
        return x


class MixtureGuide(Guide):
    """A guide for each source, under its name scope.

    Args:
        model: the mixture.
        guides: one for each source.
        reads: the input (T, N, F) of each guide in place of y, such as an estimate of its source; None: y.
    """

    stepwise = False

    def __init__(self, model: Mixture, guides: Sequence[Guide], reads: Sequence[Tensor] | None = None) -> None:
        super().__init__(model)
        self.guides = nn.ModuleList(guides)
        self.reads = reads

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto", rows: SequenceIndex | None = None) -> None:
        """The Pyro guide."""
        for k, guide in enumerate(self.guides):
            with Scope(f"s{k}_"):
                guide(x if self.reads is None else self.reads[k], lengths)
