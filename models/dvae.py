"""The base class of DVAEs: settings, networks, and a step that defines the Pyro model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from dvae_pyro.fields import bounded, one_of
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
    """The sites of a pass of a model or guide over a batch, with scaled data; arguments as of `DVAE.forward`.

    Raises:
        UserError: for sequences longer than the model's segments.
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
    """Settings of every model.

    Attributes:
        name: the model's name on the command line.
        z_dim: size L of the latent of a frame.
        bins: size D of a frame of data; for power spectra the number of frequency bins F.
        input: the transform of the networks' input: "log" (standardised log-power), "unscaled_log", "standard",
            "global" or "raw" (as published), see `models.nn.inputs`.
        likelihood: the distribution of a frame of data: "power_spectrum", "bernoulli", "gaussian", "mixture" (of
            Gaussians, one component for a frame), "channel_mixture" (one for each value in it) or "pen" (strokes).
        components: number K of Gaussians in a mixture.
        variance_floor: smallest variance of the likelihood; 0 as in the papers.
        scale_bounds: smallest and largest standard deviation of "mixture", "channel_mixture" and "pen", to which a
            softplus is clamped, as in the public codes of MS-STCN (0.001 and 5) and STCN (0.001 and 50); null adds the
            root of `variance_floor` to the softplus instead.
        weight_floor: smallest weight of a mixture component, before the weights are normalised.
        normalise: whether the data themselves (except the pen's binary value) are standardised by statistics of the
            training data, which are saved with the weights: per bin, or, "global", by one mean and deviation, as for
            samples of a waveform. Densities are then those of standardised data; decoded data are scaled back.
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
    normalise: bool | str = one_of(False, True, "global")


class DVAE(Program):
    """A dynamical VAE: the generative model p(x, z) as a Pyro program.

    A subclass defines its networks, one method for each conditional, which returns a distribution, and the
    `step` that wires them. Everything else follows: scoring all frames at once, generating frame by frame.

    Class attributes that a subclass sets:
        Settings: its settings, derived from `ModelSettings`.
        paper_guide: ``"module:Class"`` of its paper's guide; `guide_path` if it depends on settings.
        declared: the variables that the conditional of each site depends on, as slices of time
            (`models.structure.parents`): ``"z[t-1]"``, ``"z[:t]"``, ``"v"``; `parents` if they depend on settings.
        latents: names of its latent sites; those that are declared as parents without a frame are outside time;
            `latents_of` if they depend on settings.
        frame_latent: the latent of each frame that recurrent guides draw.
        stepwise: whether its `step` runs frame by frame; a model whose frames depend on future ones, or whose latents
            have several time scales, has `all_frames` instead.
        hierarchical: whether it has latents of whole sequences, of which a batch holds segments, and therefore needs a
            `models.core.grouping.SequenceIndex`.
        segment: the largest number of frames that it takes at once; longer sequences are cut. None: any number.
        defaults: its default settings outside `model`, by dotted key.
    """

    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    paper_guide: ClassVar[str]
    declared: ClassVar[Parents]
    latents: tuple[str, ...] = ("z",)
    frame_latent: ClassVar[str] = "z"
    stepwise: bool = True
    hierarchical: ClassVar[bool] = False
    segment: int | None = None
    defaults: ClassVar[Mapping[str, Any]] = {
        "optim.lr": 3e-3,
        "optim.schedule": "plateau",  # at a constant rate the validation bound rises and falls in long trainings
        "optim.clip": 5.0,
        "train.kl_warmup_epochs": 10.0,  # without warm-up the latents were almost unused for 1 of 3 seeds
    }

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.x_dim = settings.bins
        self.z_dim = settings.z_dim
        self.likelihood_name = settings.likelihood
        if settings.input in ("log", "unscaled_log") and likelihood_kind(settings.likelihood).support_text == "numbers":
            raise UserError(
                f"model.input={settings.input} takes the logarithm of the data, but with "
                f"model.likelihood={settings.likelihood} they can be negative. Set model.input=standard or raw."
            )
        self.input = InputTransform(settings.input, settings.bins)
        self.scaling = InputTransform(
            SCALINGS[settings.normalise], settings.bins, likelihood_kind(settings.likelihood).bits
        )

    @classmethod
    def parents(cls, settings: Any) -> Parents:
        """The variables that the conditional of each site depends on, for a model where they depend on settings."""
        return cls.declared

    @classmethod
    def guide_path(cls, settings: Any) -> str:
        """``"module:Class"`` of its paper's guide."""
        return cls.paper_guide

    @classmethod
    def latents_of(cls, settings: Any) -> tuple[str, ...]:
        """Its latents in the order of drawing, for a model where they depend on settings."""
        return cls.latents

    @classmethod
    def waveform_defaults(cls, frame_width: int) -> Mapping[str, Any]:
        """Further default settings, by dotted key, for waveform frames of `frame_width` samples."""
        return {}

    def frozen_at(self, step: int) -> Iterable[nn.Parameter]:
        """Parameters that a training step, counted from 1, leaves as they are: a warm-up of the others."""
        return ()

    @property
    def strides(self) -> dict[str, int]:
        """Frames per step of each site with a coarser time scale."""
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        """The dimension of each site that conditionals use the previous frame of."""
        return {"x": self.x_dim, "z": self.z_dim}

    def step(self, t: TimeAxis) -> None:
        """One factor of the joint density: draw the latents of the frames of `t`, observe the data."""
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
            rows: for a `hierarchical` model, the sequence of each segment; by default each is a sequence of its own.

        Returns:
            The data (..., T, N, D): `x` if it is observed, else generated data, zero beyond each length.

        Raises:
            ValueError: for a frame-by-frame run of a model that is not `stepwise`.
            UserError: for sequences longer than the model's segments.
        """
        sites = batch_sites(self, x, lengths, rows)
        if self.stepwise:
            run(self.step, sites, how)
        elif how == "auto":
            self.all_frames(sites, lengths)
        else:
            raise ValueError(
                f"how='{how}': this model cannot run frame by frame, since its frames depend on future ones or its "
                "latents have several time scales; expected 'auto'"
            )
        generated = sites.outcome("x")
        return cast(Tensor, x) if generated is None else sites.zeroed(self.scaling.inverse(generated))

    def fit_input(self, sequences: Iterable[Tensor]) -> None:
        """Measure the statistics of scaling and input transform on training data, each (T, D), and initialise the
        likelihood from them; once, before training.

        Raises:
            UserError: for data outside the support of the likelihood.
        """
        data = list(sequences)
        self.scaling.fit(data)
        if self.scaling.standardises:  # on the CPU: the corpus may exceed the memory of a GPU
            dtype, scaling = self.like.dtype, copy.deepcopy(self.scaling).cpu()
            data = [scaling(x.to("cpu", dtype)) for x in data]
        supported = [self._supported(x) for x in data]
        self.input.fit(supported)
        if isinstance(self.likelihood, StartsFromData):
            self.likelihood.fit(supported)

    def _supported(self, x: Tensor) -> Tensor:
        likelihood = likelihood_kind(self.likelihood_name)
        if not bool(likelihood.support.check(x).all()):
            raise UserError(
                f"model.likelihood={self.likelihood_name} needs data that are {likelihood.support_text}, but these "
                f"data range from {float(x.min()):g} to {float(x.max()):g}. Likelihoods are: {', '.join(LIKELIHOODS)}."
            )
        return x
