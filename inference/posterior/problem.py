"""What every method of inference is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dvae_pyro.errors import UserError
from guides.core.guide import Guide
from inference.objectives.elbo import Terms
from inference.observation.base import Observation
from models.dvae import DVAE
from models.structure.parents import Parents

__all__ = ["InferenceSettings", "Posterior", "Problem", "causal", "check_finite", "frames_independent"]


@dataclass
class InferenceSettings:
    """How a posterior is found.

    Attributes:
        steps: gradient steps, or steps of a chain.
        lr: Adam's learning rate; null is the method's own.
        objective: ``"analytic"`` takes the KL of Gaussians in closed form, ``"elbo"`` from the draws.
        latents: ``"sample"`` draws z from the guide in each step, ``"mean"`` takes its mean, as if it were the draw.
        draws: draws of z in each step.
        wiener_draws: draws of z that the Wiener gain is averaged over; with latents=mean it is that of the mean.
        past: what a model that looks back at x sees: its ``"own"`` mean of clean speech, or clean speech ``"sampled"``
            given what was observed so far.
        accept: of mala: whether proposals are accepted or refused; without, the chain is biased.
        step_size: of mala and metropolis, at the start: it is adapted in the first half of the chain.
        burn_in: part of a chain that is left out of averages.
        particles: of smc.
        seed: of all draws.
    """

    steps: int = 100
    lr: float | None = None
    objective: Literal["analytic", "elbo"] = "analytic"
    latents: Literal["sample", "mean"] = "sample"
    draws: int = 1
    wiener_draws: int = 10
    past: Literal["own", "sampled"] = "own"
    accept: bool = True
    step_size: float = 0.01
    burn_in: float = 0.5
    particles: int = 20
    seed: int = 0


class Problem(NamedTuple):
    """A prior, what was observed, and how: the program whose latents are to be inferred.

    Attributes:
        model: the prior p(s, z).
        guide: its guide q(z | s), to start from.
        y: the observed power (T, N, F), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        observation: the handler that makes the prior the program of y; what it learns it keeps.
        past: the handler that says what a model sees that looks back at x.
        remembers: whether the guide's z_t depends on z before it.
        causal: whether the guide's z_t depends on no x after frame t.
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
        """Inside, a run of the model is one of the observed program."""
        with self.observation, self.past:
            yield


class Posterior(NamedTuple):
    """What was found.

    Attributes:
        gain: the Wiener gain averaged over draws of z, E[g v / (g v + n)], (T, N, F).
        speech: the variance g v of clean speech, averaged so, (T, N, F).
        trajectory: terms of the bound at each step, (N,) each; of a chain the log-density is the reconstruction.
        rates: by name, (N,): such as how many proposals were accepted.
        guide: a guide that draws from what was found; None for chains and particles.
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
    """Refuse to go on from numbers that are none.

    Raises:
        UserError: naming the sequences of the batch.
    """
    if not bool(torch.isfinite(value).all()):
        places = (~torch.isfinite(value)).nonzero().flatten().tolist()
        raise UserError(
            f"the objective of sequence {places} of the batch is not finite at step {step}. Lower inference.lr, or "
            "compute with dtype=float64."
        )


def frames_independent(parents: Parents) -> bool:
    """Whether the frames of a model with these parents are independent: each x_t has a z_t of its own, and no more.

    Example:
        >>> frames_independent({"z": (), "x": ("z[t]",)}), frames_independent({"z": ("z[t-1]",), "x": ("z[t]",)})
        (True, False)
    """
    return all(set(of) <= {"z[t]"} for of in parents.values())


def causal(parents: Parents) -> bool:
    """Whether a guide with these parents can go along with its recording: z_t sees x up to frame t alone.

    Example:
        >>> causal({"z": ("x[:t+1]", "z[t-1]")}), causal({"z": ("x[t:]", "z[t-1]")}), causal({"z": ("x[:]",)})
        (True, False, False)
    """
    of_past = {"x[t]", "x[:t]", "x[:t+1]", "x[t-1]"}
    return all(parent in of_past for of in parents.values() for parent in of if parent.startswith("x"))
