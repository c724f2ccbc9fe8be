"""Likelihood estimates of many sequences: batches, repeats and diagnostics."""

from __future__ import annotations

import math
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

from corpora.loading.sequences import Prepared, by_length, collate
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.likelihood.arguments import ESTIMATORS
from inference.estimation.importance import estimate
from inference.handlers.free_running import free_running
from inference.particles.particle_filter import smc
from inference.runs import Run, pick_dtype

__all__ = ["ESTIMATORS", "Plan", "estimate_all", "pareto_k"]

FRAMES_AT_ONCE = 12_000
"""Padded frames of a batch of sequences."""
FRAMES_OF_PARTICLES = 60_000
"""Frames of all particles that are weighted together: about 300 MB at published sizes."""
PARTICLES = 4096
"""Particles that are filtered together, one frame at a time."""
LARGEST_FACTOR = 64
"""Largest factor by which a batch on a GPU exceeds one on a CPU."""
LEAST_FOR_K = 25
"""Smallest K for Pareto k-hat, whose tail is then 5 draws."""

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What to estimate, and how.

    Attributes:
        estimators: names from `ESTIMATORS`.
        particles: K.
        repeats: independent estimates of each sequence.
        chunk: trajectories (a particle of a sequence) that go through the networks together; None selects a number.
        threshold: the filter resamples below this share of K, see `inference.particles.particle_filter.smc`.
        scheme: its resampling scheme.
        mode: "gt", the model is given the true past of x, or "gen", its own output.
        seed: seed of the noise, together with the name of a sequence and the repeat.
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
    """A batch: indices of its sequences, data (T, N, D), lengths and seeds (N,)."""

    indices: list[int]
    x: Tensor
    lengths: Tensor
    seeds: list[str]


class _Indexed(NamedTuple):
    number: int
    item: Prepared
    x: Tensor


def estimate_all(run: Run, sequences: Sequence[Prepared], plan: Plan, *, progress: bool = False) -> dict[str, Figures]:
    """Estimate the log-likelihood of sequences; the estimates do not depend on `Plan.chunk` or on the other sequences.

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
        UserError: a particle filter is asked for, and the model has no step.
    """
    passes: list[_Weighing | _Filtering] = [_Weighing(run, plan)] if {"elbo", "iwae"} & {*plan.estimators} else []
    passes += [_Filtering(run, plan)] if "smc" in plan.estimators else []
    figures: dict[str, Figures] = {}
    total = plan.repeats * len(passes) * sum(len(item.x) for item in sequences)
    bar = progress_bar("likelihood", total, "frame", shown=progress, unit_scale=True)
    mode = free_running() if plan.mode == "gen" else nullcontext()
    with bar, mode, torch.no_grad(), pyro.validation_enabled(False):
        for repeat in range(plan.repeats):
            for estimator in passes:
                for batch in _batches(run, sequences, estimator.together(), f"{plan.seed}/{repeat}"):
                    for name, values in estimator(batch).items():
                        empty = np.full((plan.repeats, len(sequences)), math.nan)
                        figures.setdefault(name, empty)[repeat, batch.indices] = values.double().cpu().numpy()
                    bar.update(int(batch.lengths.sum()))
    return figures


def _size_factor(device: str) -> int:
    """Factor by which a batch on a device exceeds one on a CPU: the free memory of a GPU in GiB."""
    place = torch.device(device)
    return max(1, min(LARGEST_FACTOR, torch.cuda.mem_get_info(place)[0] >> 30)) if place.type == "cuda" else 1


class _Weighing:
    """Importance weights: elbo and iwae."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run, self.plan = run, plan

    def together(self) -> int | None:
        """Sequences in a batch; None: no bound."""
        return None

    def __call__(self, batch: _Batch) -> dict[str, Tensor]:
        trajectories = self.plan.chunk or _size_factor(self.run.settings.device) * FRAMES_OF_PARTICLES // len(batch.x)
        at_once = min(max(1, trajectories // len(batch.indices)), self.plan.particles)
        model, guide, x, lengths = self.run.model, self.run.guide, batch.x, batch.lengths
        bounds = estimate(model, guide, x, lengths, self.plan.particles, chunk=at_once, seeds=batch.seeds)
        figures = {"elbo": bounds.elbo, "elbo_analytic": bounds.analytic, "iwae": bounds.iwae, "iwae_ess": bounds.ess}
        figures |= {f"kl_{name}": kl for name, kl in bounds.kl.items()}
        return figures | {"pareto_k": torch.from_numpy(pareto_k(bounds.log_weights.double().cpu().numpy()))}


class _Filtering:
    """The particle filter: smc."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run, self.plan = run, plan
        if not run.model.stepwise:
            raise UserError(
                f"model '{run.settings.model.name}' of {run.path} has no step (its frames depend on later latents, or "
                "its latents have several time scales), so a particle filter cannot run. Use --estimator elbo iwae."
            )

    def together(self) -> int | None:
        """Sequences in a batch."""
        return max(1, (self.plan.chunk or _size_factor(self.run.settings.device) * PARTICLES) // self.plan.particles)

    def __call__(self, batch: _Batch) -> dict[str, Tensor]:
        plan, model, guide, x, lengths = self.plan, self.run.model, self.run.guide, batch.x, batch.lengths
        how: dict[str, Any] = {"threshold": plan.threshold, "scheme": plan.scheme, "seeds": batch.seeds, "keep": False}
        filtered = smc(model, guide, x, lengths, plan.particles, **how)
        ended = torch.arange(len(x))[:, None] >= lengths
        return {"smc": filtered.log_evidence, "smc_ess": filtered.ess.cpu().masked_fill(ended, math.inf).amin(0)}


def pareto_k(log_weights: Figures) -> Figures:
    """k-hat of the importance weights of each sequence, (K, N) to (N,): the shape of a Pareto distribution fitted to
    the largest weights. Below 0.5 their variance is finite; above 0.7 no practical K makes the estimate reliable
    (Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", 2024). NaN for fewer than
    `LEAST_FOR_K` weights, and where a weight is not finite.
    """
    k_hat = np.full(log_weights.shape[1], math.nan)
    whole = np.isfinite(log_weights).all(axis=0)
    if len(log_weights) >= LEAST_FOR_K and whole.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of ArviZ, about its next major version
            from arviz import psislw
        k_hat[whole] = psislw(log_weights[:, whole].T)[1]
    return k_hat


def _batches(run: Run, sequences: Sequence[Prepared], most: int | None, seed: str) -> Iterator[_Batch]:
    """Batches of at most `most` sequences of similar length, on the run's device."""
    dtype, device = pick_dtype(run.settings.dtype), run.settings.device
    at_once = _size_factor(device) * FRAMES_AT_ONCE
    for some in by_length([_Indexed(i, item, item.x) for i, item in enumerate(sequences)], at_once):
        for first in range(0, len(some), most or len(some)):
            part = some[first : first + (most or len(some))]
            batch = collate([indexed.item for indexed in part])
            seeds = [f"{seed}/{indexed.item.file}/{indexed.item.start}" for indexed in part]
            yield _Batch(
                [indexed.number for indexed in part], batch.x.to(device=device, dtype=dtype), batch.lengths, seeds
            )
