"""What every DVAE is: settings, networks, and a step that is the Pyro model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from models.inputs import InputTransform
from models.structure import Parents
from models.time_axis import Sites, TimeAxis, run

__all__ = ["DVAE", "ModelSettings"]


@dataclass
class ModelSettings:
    """What every model is told.

    Attributes:
        name: the model's name on the command line.
        z_dim: size L of the latent of a frame.
        bins: size D of a frame of data; for power spectra the number of frequency bins F.
        input: what networks see of the data: "log" (standardised log-power) or "power" (raw, as published).
        likelihood: the distribution of a frame of data.
        variance_floor: least variance of the likelihood; 0 reproduces the papers.
    """

    name: str = ""
    z_dim: int = 16
    bins: int = 257
    input: str = "log"
    likelihood: str = "power_spectrum"
    variance_floor: float = 1e-10


class DVAE(nn.Module):
    """A dynamical VAE: the generative model p(x, z) as a Pyro program.

    A subclass gives its networks, one method for each conditional, which returns a distribution, and the
    `step` that wires them. Everything else follows: scoring all frames at once, generating frame by frame.

    Class attributes that a subclass sets:
        Settings: its settings, derived from `ModelSettings`.
        own_guide: where its paper's guide is, ``"module:Class"``.
        latents: names of its latent sites.
        defaults: settings outside the model's own that it is trained with by default, by dotted key.
    """

    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    own_guide: ClassVar[str]
    latents: ClassVar[tuple[str, ...]] = ("z",)
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.x_dim = settings.bins
        self.z_dim = settings.z_dim
        self.input = InputTransform(settings.input, settings.bins)

    @classmethod
    def parents(cls, settings: Any) -> Parents:
        """What the conditional of each site depends on, as slices of time (`models.structure`):
        ``"z[t-1]"``, ``"z[:t]"``, ``"v"``.
        """
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        """The dimension of each site that has a frame before it."""
        return {"x": self.x_dim, "z": self.z_dim}

    def step(self, t: TimeAxis) -> None:
        """One factor of the chain rule over time: draw the latents of the frames of `t`, observe the data."""
        raise NotImplementedError

    def forward(self, x: Tensor | None, lengths: Tensor, how: str = "auto") -> None:
        """The Pyro model.

        Args:
            x: data (T, N, D); None generates it.
            lengths: frames of each sequence (N,).
            how: which interpreter of the time axis runs the step, see `models.time_axis.run`.
        """
        run(self.step, Sites({"x": x}, lengths, self.sizes, next(self.parameters())), how)

    def fit_input(self, sequences: Iterable[Tensor]) -> None:
        """Measure on training data, each (T, D), what the input transform needs; once, before training."""
        self.input.fit(sequences)
