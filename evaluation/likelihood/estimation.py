"""Likelihood estimates of many sequences: batches, repeats, and the diagnostics of each."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from corpora.loading.sequences import Prepared, by_length, collate
from dvae_pyro.errors import UserError
from inference.estimation.importance import estimate
from inference.handlers.free_running import free_running
from inference.particles.particle_filter import smc
from inference.runs import Run, pick_dtype

__all__ = ["ESTIMATORS", "Plan", "estimate_all", "pareto_k"]

ESTIMATORS = ("elbo", "iwae", "smc")
FRAMES_AT_ONCE = 12_000  # padded frames of a batch of sequences
FRAMES_OF_PARTICLES = 60_000  # of all particles that are weighed together: some 300 MB at published sizes
PARTICLES = 4096  # that are filtered together, one frame of each at a time
MOST_TIMES = 64  # as much on a GPU as on a CPU
LEAST_FOR_K = 25  # the tail that a Pareto distribution is fitted to is then 5 draws

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What to estimate, and how.

    Attributes:
        estimators: names from `ESTIMATORS`.
        particles: K.
        repeats: independent estimates of each sequence.
        chunk: trajectories (a particle of a sequence) that go through the networks together; None chooses.
        threshold: the filter resamples below this share of K, see `inference.particles.particle_filter.smc`.
        scheme: how it resamples.
        mode: "gt", the model sees the true past of x, or "gen", its own output.
        seed: decides all noise, with the name of a sequence and the repeat.
    """

    estimators: tuple[str, ...]
    particles: int = 100
    repeats: int = 1
    chunk: int | None = None
    threshold: float = 0.5
    scheme: str = "systematic"
    mode: str = "gt"
    seed: int = 0


class _Batch(NamedTuple):
    """Sequences side by side: where they belong, data (T, N, D), lengths and seeds (N,)."""

    places: list[int]
    x: Tensor
    lengths: Tensor
    seeds: list[str]


class _Placed(NamedTuple):
    place: int
    item: Prepared
    x: Tensor


def estimate_all(run: Run, sequences: Sequence[Prepared], plan: Plan, *, progress: bool = False) -> dict[str, Figures]:
    """Estimate the log-likelihood of sequences; nothing depends on `Plan.chunk` or on the other sequences.

    Args:
        run: the run.
        sequences: the data.
        plan: what to estimate.
        progress: draw a progress bar on standard error.

    Returns:
        For each repeat and sequence, (R, N), nats under "elbo" (from samples), "elbo_analytic" (the same draws,
        closed-form KLs), "iwae" and "smc", the KL of each latent under "kl_" and its name, and diagnostics: "iwae_ess",
        effective sample size of the K weights; "pareto_k", their k-hat (`pareto_k`); "smc_ess", the filter's least
        effective sample size over the frames.

    Raises:
        UserError: for a particle filter on a model that has no step.
    """
    passes: list[_Weighing | _Filtering] = [_Weighing(run, plan)] if {"elbo", "iwae"} & {*plan.estimators} else []
    passes += [_Filtering(run, plan)] if "smc" in plan.estimators else []
    figures: dict[str, Figures] = {}
    total = plan.repeats * len(passes) * sum(len(item.x) for item in sequences)
    seldom = 0.2 if sys.stderr.isatty() else 30.0
    bar = tqdm(desc="likelihood", total=total, unit="frame", unit_scale=True, disable=not progress, mininterval=seldom)
    mode = free_running() if plan.mode == "gen" else nullcontext()
    with bar, mode, torch.no_grad(), pyro.validation_enabled(False):
        for repeat in range(plan.repeats):
            for one in passes:
                for batch in _batches(run, sequences, one.together(), f"{plan.seed}/{repeat}"):
                    for name, values in one(batch).items():
                        empty = np.full((plan.repeats, len(sequences)), math.nan)
                        figures.setdefault(name, empty)[repeat, batch.places] = values.double().cpu().numpy()
                    bar.update(int(batch.lengths.sum()))
    return figures


def _times(device: str) -> int:
    """How many times as much as on a CPU goes through a device at once: once for each GiB that is free on a GPU."""
    place = torch.device(device)
    return max(1, min(MOST_TIMES, torch.cuda.mem_get_info(place)[0] >> 30)) if place.type == "cuda" else 1


class _Weighing:
    """Importance weights: elbo and iwae."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run, self.plan = run, plan

    def together(self) -> int | None:
        """How many sequences go together: None, as many as there are."""
        return None

    def __call__(self, batch: _Batch) -> dict[str, Tensor]:
        trajectories = self.plan.chunk or _times(self.run.settings.device) * FRAMES_OF_PARTICLES // len(batch.x)
        at_once = min(max(1, trajectories // len(batch.places)), self.plan.particles)
        model, guide, x, lengths = self.run.model, self.run.guide, batch.x, batch.lengths
        found = estimate(model, guide, x, lengths, self.plan.particles, chunk=at_once, seeds=batch.seeds)
        bounds = {"elbo": found.elbo, "elbo_analytic": found.analytic, "iwae": found.iwae, "iwae_ess": found.ess}
        bounds |= {f"kl_{name}": kl for name, kl in found.kl.items()}
        return bounds | {"pareto_k": torch.from_numpy(pareto_k(found.log_weights.double().cpu().numpy()))}


class _Filtering:
    """The particle filter, whose particles go together, frame by frame."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run, self.plan = run, plan
        if not run.model.stepwise:
            raise UserError(
                f"model '{run.settings.model.name}' of {run.path} has no step: its frames see later latents, or its "
                "latents have time scales of their own, so no particle filter can follow it. Use --estimator elbo iwae."
            )

    def together(self) -> int | None:
        """How many sequences go together."""
        return max(1, (self.plan.chunk or _times(self.run.settings.device) * PARTICLES) // self.plan.particles)

    def __call__(self, batch: _Batch) -> dict[str, Tensor]:
        plan, model, guide, x, lengths = self.plan, self.run.model, self.run.guide, batch.x, batch.lengths
        how: dict[str, Any] = {"threshold": plan.threshold, "scheme": plan.scheme, "seeds": batch.seeds, "keep": False}
        found = smc(model, guide, x, lengths, plan.particles, **how)
        ended = torch.arange(len(x))[:, None] >= lengths
        return {"smc": found.log_evidence, "smc_ess": found.ess.cpu().masked_fill(ended, math.inf).amin(0)}


def pareto_k(log_weights: Figures) -> Figures:
    """k-hat of the importance weights of each sequence, (K, N) to (N,): the shape of a Pareto distribution fitted to
    the largest of them. Below 0.5 their variance is finite; above 0.7 no practical K makes the estimate reliable
    (Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", 2024). Nan for fewer than
    `LEAST_FOR_K` weights, and where a weight is not finite.
    """
    found = np.full(log_weights.shape[1], math.nan)
    whole = np.isfinite(log_weights).all(axis=0)
    if len(log_weights) >= LEAST_FOR_K and whole.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the next major version of ArviZ announces itself
            from arviz import psislw
        found[whole] = psislw(log_weights[:, whole].T)[1]
    return found


def _batches(run: Run, sequences: Sequence[Prepared], most: int | None, seed: str) -> Iterator[_Batch]:
    """Sequences of similar length side by side, at most `most`, on the run's device."""
    dtype, device = pick_dtype(run.settings.dtype), run.settings.device
    at_once = _times(run.settings.device) * FRAMES_AT_ONCE
    for some in by_length([_Placed(i, item, item.x) for i, item in enumerate(sequences)], at_once):
        for first in range(0, len(some), most or len(some)):
            part = some[first : first + (most or len(some))]
            batch = collate([placed.item for placed in part])
            seeds = [f"{seed}/{placed.item.file}/{placed.item.start}" for placed in part]
            yield _Batch([p.place for p in part], batch.x.to(device=device, dtype=dtype), batch.lengths, seeds)
