"""What every DVAE is: settings, networks, and a step that is the Pyro model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from dvae_pyro.fields import bounded
from models.core.effects import longest
from models.core.grouping import SequenceIndex
from models.core.program import Program
from models.core.sites import Sites
from models.core.tensors import normal
from models.core.time_axis import TimeAxis, run
from models.likelihoods.base import LIKELIHOODS, StartsFromData, likelihood_kind
from models.nn.inputs import InputTransform
from models.structure.parents import Parents

__all__ = ["DVAE", "ModelSettings", "batch_sites", "standard_normal"]

SCALINGS: dict[bool | str, str] = {False: "raw", True: "standard", "global": "global"}
"""The transform of the data for each value of `ModelSettings.normalise`."""


def standard_normal(program: Program, dim: int) -> dist.TorchDistribution:
    """N(0, I) of the type and on the device of a program."""
    zero = program.like.new_zeros(dim)
    return normal(zero, zero)


def batch_sites(program: Any, x: Tensor | None, lengths: Tensor, rows: SequenceIndex | None = None) -> Sites:
    """A pass of a model or guide over a batch, its data scaled; arguments as of `DVAE.forward`.

    Raises:
        UserError: for more frames than it takes at once.
    """
    if program.segment is not None and longest(lengths) > program.segment:
        raise UserError(
            f"this model takes segments of up to {program.segment} frames (model.segment), got sequences of "
            f"{longest(lengths)}. Set data.sequence_frames={program.segment}, or cut them."
        )
    rows = (SequenceIndex.alone(len(lengths)) if rows is None else rows) if program.hierarchical else None
    data = {"x": None if x is None else program.scaling(x)}
    return Sites(data, lengths, program.sizes, program.like, rows)


@dataclass
class ModelSettings:
    """What every model is told.

    Attributes:
        name: the model's name on the command line.
        z_dim: size L of the latent of a frame.
        bins: size D of a frame of data; for power spectra the number of frequency bins F.
        input: what networks see of the data: "log" (standardised log-power), "unscaled_log", "standard", "global"
            or "raw" (as published), see `models.nn.inputs`.
        likelihood: the distribution of a frame of data: "power_spectrum", "bernoulli", "gaussian", "mixture" (of
            Gaussians, one component for a frame), "channel_mixture" (one for each value in it) or "pen" (strokes).
        components: number K of Gaussians, in those that are mixtures.
        variance_floor: least variance of the likelihood; 0 reproduces the papers.
        scale_bounds: least and largest standard deviation of "mixture", "channel_mixture" and "pen", a softplus clamped
            to them, as in the public codes of MS-STCN (0.001 and 5) and STCN (0.001 and 50); null adds the root of
            `variance_floor` to the softplus instead.
        weight_floor: least weight of a component of these, before the weights are normalised.
        normalise: whether the data themselves are standardised (all but whether a pen is lifted) by statistics of the
            training data that are kept with the weights: bin by bin, or, "global", all values alike, as samples of a
            waveform. All densities are then those of standardised data; what is decoded is scaled back.
    """

    name: str = ""
    z_dim: int = 16
    bins: int = 257
    input: str = "log"
    likelihood: str = "power_spectrum"
    components: int = 10
    variance_floor: float = bounded(1e-10, at_least=0)
    scale_bounds: tuple[float, float] | None = None
    weight_floor: float = 0.0
    normalise: bool | Literal["global"] = False


class DVAE(Program):
    """A dynamical VAE: the generative model p(x, z) as a Pyro program.

    A subclass gives its networks, one method for each conditional, which returns a distribution, and the
    `step` that wires them. Everything else follows: scoring all frames at once, generating frame by frame.

    Class attributes that a subclass sets:
        Settings: its settings, derived from `ModelSettings`.
        own_guide: where its paper's guide is, ``"module:Class"``; `guide_path` where that depends on settings.
        latents: names of its latent sites; those that no conditional names with a frame are outside time;
            `latents_of` where they depend on settings.
        frame_latent: the latent of each frame that guides of the family draw.
        stepwise: whether it has a `step`. One whose frames see the future does without, and has `all_frames`.
        hierarchical: whether it has latents above the sequences of a batch, which are then segments, and so wants to
            know their `models.core.grouping.SequenceIndex`.
        segment: most frames that it takes at once; longer sequences are cut. None: any number.
        defaults: settings outside the model's own that it is trained with by default, by dotted key.
    """

    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    paper_guide: ClassVar[str]
    latents: tuple[str, ...] = ("z",)
    frame_latent: ClassVar[str] = "z"
    stepwise: bool = True
    hierarchical: ClassVar[bool] = False
    segment: int | None = None
    defaults: ClassVar[Mapping[str, Any]] = {
        "optim.lr": 3e-3,
        "optim.clip": 5.0,
        "train.kl_warmup_steps": 200,  # without it one seed in three hardly uses its latents after 600 steps
    }

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.x_dim = settings.bins
        self.z_dim = settings.z_dim
        self.likelihood_name = settings.likelihood
        if settings.input in ("log", "unscaled_log") and likelihood_kind(settings.likelihood).support_text == "numbers":
            raise UserError(
                f"model.input={settings.input} takes the logarithm of data that "
                f"model.likelihood={settings.likelihood} lets fall below zero. Set model.input=standard or raw."
            )
        self.input = InputTransform(settings.input, settings.bins)
        self.scaling = InputTransform(
            SCALINGS[settings.normalise], settings.bins, likelihood_kind(settings.likelihood).bits
        )

    @classmethod
    def parents(cls, settings: Any) -> Parents:
        """What the conditional of each site depends on, as slices of time (`models.structure.parents`):
        ``"z[t-1]"``, ``"z[:t]"``, ``"v"``.
        """
        raise NotImplementedError

    @classmethod
    def guide_path(cls, settings: Any) -> str:
        """Where its paper's guide is."""
        return cls.paper_guide

    @classmethod
    def latents_of(cls, settings: Any) -> tuple[str, ...]:
        """Its latents in the order they are drawn, for a model where that depends on settings."""
        return cls.latents

    @classmethod
    def waveform_defaults(cls, frame_width: int) -> Mapping[str, Any]:
        """Further defaults, by dotted key, on frames of a waveform of so many samples."""
        return {}

    def frozen_at(self, step: int) -> Iterable[nn.Parameter]:
        """Parameters that a training step, counted from 1, leaves as they are: a warm-up of the others."""
        return ()

    @property
    def strides(self) -> dict[str, int]:
        """Frames in one step of each site that has a time scale of its own."""
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        """The dimension of each site that has a frame before it."""
        return {"x": self.x_dim, "z": self.z_dim}

    def step(self, t: TimeAxis) -> None:
        """One factor of the chain rule over time: draw the latents of the frames of `t`, observe the data."""
        raise NotImplementedError

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        """All factors at once, for a model that is not `stepwise`."""
        raise NotImplementedError

    def forward(
        self, x: Tensor | None, lengths: Tensor, how: str = "auto", rows: SequenceIndex | None = None
    ) -> Tensor:
        """The Pyro model.

        Args:
            x: data (T, N, D); None generates it.
            lengths: frames of each sequence (N,).
            how: which interpreter of the time axis runs the step, see `models.core.time_axis.run`.
            rows: which sequences of a corpus these are segments of, for a `hierarchical` model; by default each is a
                sequence of its own.

        Returns:
            The data (..., T, N, D): what was observed, as it was given, or generated, zero beyond each length.

        Raises:
            ValueError: for a frame-by-frame run of a model that has no step.
            UserError: for more frames than it takes at once.
        """
        sites = batch_sites(self, x, lengths, rows)
        if self.stepwise:
            run(self.step, sites, how)
        elif how == "auto":
            self.all_frames(sites, lengths)
        else:
            raise ValueError(f"how='{how}': this model's frames see the future, so it has no step; expected 'auto'")
        generated = sites.outcome("x")
        return cast(Tensor, x) if generated is None else sites.zeroed(self.scaling.inverse(generated))

    def fit_input(self, sequences: Iterable[Tensor]) -> None:
        """Measure on training data, each (T, D), what scaling and input transform need and where the likelihood is to
        start; once, before training.

        Raises:
            UserError: for data that the likelihood gives no density to.
        """
        given = list(sequences)
        self.scaling.fit(given)
        if self.scaling.standardises:  # on the CPU: a GPU need not have room for a corpus
            dtype, scaling = self.like.dtype, copy.deepcopy(self.scaling).cpu()
            given = [scaling(x.to("cpu", dtype)) for x in given]
        supported = [self._supported(x) for x in given]
        self.input.fit(supported)
        if isinstance(self.likelihood, StartsFromData):
            self.likelihood.fit(supported)

    def _supported(self, x: Tensor) -> Tensor:
        likelihood = likelihood_kind(self.likelihood_name)
        if not bool(likelihood.support.check(x).all()):
            raise UserError(
                f"model.likelihood={self.likelihood_name} is a distribution of values that are "
                f"{likelihood.support_text}, and the data go from {float(x.min()):g} to {float(x.max()):g}. "
                f"Known: {', '.join(LIKELIHOODS)}."
            )
        return x
