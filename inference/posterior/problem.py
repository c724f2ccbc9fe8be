"""The input of every method of inference, `Problem`, and its result, `Posterior`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dvae_pyro.errors import UserError
from dvae_pyro.fields import bounded, one_of
from guides.core.guide import Guide
from inference.objectives.elbo import Terms
from inference.observation.base import Observation
from models.dvae import DVAE
from models.structure.parents import Parents

__all__ = ["InferenceSettings", "Posterior", "Problem", "causal", "check_finite", "frames_independent"]


@dataclass
class InferenceSettings:
    """Settings of the inference of a posterior.

    Attributes:
        steps: gradient steps, or steps of a chain.
        lr: Adam's learning rate; null is the method's own.
        objective: ``"analytic"`` takes the KL of Gaussians in closed form, ``"elbo"`` from the draws.
        latents: ``"sample"`` draws z from the guide in each step, ``"mean"`` uses the guide's mean in place of a draw.
        draws: draws of z in each step.
        wiener_draws: draws of z that the Wiener gain is averaged over; with latents=mean the gain is computed at the
            mean.
        past: the input of a model that depends on past frames of x: its ``"own"`` mean of clean speech, or clean
            speech ``"sampled"`` given the observations up to that frame.
        accept: whether mala accepts or rejects proposals; without this step the chain is biased.
        step_size: initial step size of mala and metropolis; it is adapted in the first half of the chain.
        burn_in: fraction of a chain that is omitted from averages.
        particles: number of particles of smc.
        seed: seed of all draws.
    """

    steps: int = bounded(100, at_least=0)
    lr: float | None = bounded(None, above=0)
    objective: str = one_of("analytic", "elbo")
    latents: str = one_of("sample", "mean")
    draws: int = bounded(1, at_least=1)
    wiener_draws: int = bounded(10, at_least=1)
    past: str = one_of("own", "sampled")
    accept: bool = True
    step_size: float = bounded(0.01, above=0)
    burn_in: float = 0.5
    particles: int = bounded(20, at_least=1)
    seed: int = 0


class Problem(NamedTuple):
    """A prior, the observed data and the observation model: the program whose latents are inferred.

    Attributes:
        model: the prior p(s, z).
        guide: its guide q(z | s), to start from.
        y: the observed power (T, N, F), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        observation: the handler that turns the prior into the program of y; it holds the estimated parameters.
        past: the handler that supplies past frames of x to a model that depends on them.
        remembers: whether the guide's z_t depends on earlier z.
        causal: whether the guide's z_t depends on x up to frame t only.
        independent: whether, given W, H and g, the frames of the posterior are independent of each other.
    """

    model: DVAE
    guide: Guide
    y: Tensor
    lengths: Tensor
    observation: Observation
    past: Messenger
    remembers: bool = False
    independent: bool = False
    causal: bool = False

    @contextmanager
    def program(self) -> Iterator[None]:
        """A context in which running the model runs the observed program."""
        with pyro.validation_enabled(False), self.observation, self.past:
            yield


class Posterior(NamedTuple):
    """An inferred posterior.

    Attributes:
        gain: the Wiener gain averaged over draws of z, E[g v / (g v + n)], (T, N, F); complex for reverberation.
        speech: the variance g v of clean speech, averaged over draws of z, (T, N, F).
        trajectory: terms of the bound at each step, (N,) each; for a chain, the reconstruction is the log-density.
        rates: rates by name, (N,) each, such as the acceptance rate of proposals.
        guide: a guide that draws from the posterior; None for chains and particles.
        others: the Wiener gains of further sources, each (T, N, F).
    """

    gain: Tensor
    speech: Tensor
    trajectory: Sequence[Terms]
    rates: dict[str, Tensor]
    guide: Guide | None = None
    others: tuple[Tensor, ...] = ()

    @property
    def objective(self) -> Tensor:
        """The method's own objective at the end, in nats, (N,)."""
        return self.trajectory[-1].elbo


Progress = Callable[[], object]


def check_finite(value: Tensor, step: int) -> None:
    """Check that the objective of every sequence is finite.

    Raises:
        UserError: The objective of some sequences is not finite.
    """
    if not bool(torch.isfinite(value).all()):
        places = (~torch.isfinite(value)).nonzero().flatten().tolist()
        raise UserError(
            f"the objective of sequence {places} of the batch is not finite at step {step}. Lower inference.lr, or "
            "compute with dtype=float64."
        )


def frames_independent(parents: Parents) -> bool:
    """Whether the frames of a model with these parents are independent: x_t depends on z_t only, and z_t on no frame.

    Example:
        >>> frames_independent({"z": (), "x": ("z[t]",)}), frames_independent({"z": ("z[t-1]",), "x": ("z[t]",)})
        (True, False)
    """
    return all(set(of_site) <= {"z[t]"} for of_site in parents.values())


def causal(parents: Parents) -> bool:
    """Whether a guide with these parents can be run online: z_t depends on x up to frame t only.

    Example:
        >>> causal({"z": ("x[:t+1]", "z[t-1]")}), causal({"z": ("x[t:]", "z[t-1]")}), causal({"z": ("x[:]",)})
        (True, False, False)
    """
    of_past = {"x[t]", "x[:t]", "x[:t+1]", "x[t-1]"}
    return all(parent in of_past for of_site in parents.values() for parent in of_site if parent.startswith("x"))
