"""Approximation and amortisation gap of a run's guide: what `evaluation.inference_gap` measures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from corpora.loading.sequences import Prepared
from evaluation.predictive_checks.replications import batches
from guides.core.guide import Guide
from inference.estimation.importance import estimate
from inference.estimation.refinement import refine, remembers
from inference.handlers.free_running import free_running
from inference.particles.particle_filter import smc
from inference.runs import Run, pick_dtype

__all__ = ["Effort", "Gaps", "Measured", "gaps", "measure", "same_model"]


class Effort(NamedTuple):
    """How much is computed.

    Attributes:
        particles: K of importance weights and particle filter, and of the bounds.
        steps: gradient steps of the refinement.
        lr: its learning rate.
        chunk: particles of a batch that are computed at once.
    """

    particles: int
    steps: int
    lr: float
    chunk: int


class Measured(NamedTuple):
    """Estimates of one run, in nats per frame of each sequence, (N,); those of the refined guide behind.

    The particle filter's are None for a model that has no step.
    """

    elbo: Tensor
    iwae: Tensor
    smc: Tensor | None
    refined_elbo: Tensor
    refined_iwae: Tensor
    refined_smc: Tensor | None


class Gaps(NamedTuple):
    """Estimates of one run and what follows from them, in nats per frame of each sequence, (N,).

    Attributes:
        measured: the estimates.
        log_evidence: the best lower bound on log p(x), of this run or of all that have the same model.
        best: which estimate that is.
    """

    measured: Measured
    log_evidence: Tensor
    best: str

    @property
    def approximation(self) -> Tensor:
        return self.log_evidence - self.measured.refined_elbo

    @property
    def amortisation(self) -> Tensor:
        return self.measured.refined_elbo - self.measured.elbo


def measure(run: Run, sequences: Sequence[Prepared], effort: Effort, mode: str = "gt") -> Measured:
    """Refine the guide of a run for sequences, and measure both.

    Args:
        run: the run; noise is that of its seed, the same for both guides, but not that the refinement is chosen by.
        sequences: the data.
        effort: how much is computed.
        mode: "gt", the decoder sees the true past, or "gen", its own output.
    """
    rows: dict[str, list[Any]] = {name: [None] * len(sequences) for name in Measured._fields}
    settings = run.settings
    total = effort.steps * len(list(batches(sequences)))
    bar = tqdm(total=total, desc=f"refining {settings.guide.name}", unit="step", disable=not sys.stderr.isatty())
    with bar, torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for places, batch in batches(sequences):
            x = batch.x.to(device=settings.device, dtype=pick_dtype(settings.dtype))
            with free_running() if mode == "gen" else ExitStack():
                refined = refine(
                    run.model,
                    run.guide,
                    x,
                    batch.lengths,
                    remembers=remembers(run.guide, run.settings.guide, run.model.latents),
                    steps=effort.steps,
                    lr=effort.lr,
                    seeds=[f"{settings.seed}/refine/{place}" for place in places],
                    progress=bar.update,
                )
                seeds = [f"{settings.seed}/{place}" for place in places]
                for prefix, guide in (("", run.guide), ("refined_", refined)):
                    for name, nats in _estimates(run, guide, x, batch.lengths, effort, seeds).items():
                        for place, value in zip(places, (nats.cpu() / batch.lengths).tolist(), strict=True):
                            rows[prefix + name][place] = value
    found: dict[str, Any] = {k: None if None in row else torch.tensor(row).double() for k, row in rows.items()}
    return Measured(**found)


def _estimates(
    run: Run, guide: Guide, x: Tensor, lengths: Tensor, effort: Effort, seeds: Sequence[str]
) -> dict[str, Tensor]:
    found = estimate(run.model, guide, x, lengths, effort.particles, chunk=effort.chunk, seeds=seeds)
    estimates = {"elbo": found.analytic, "iwae": found.iwae}
    if run.model.stepwise:
        with torch.no_grad():
            filtered = smc(run.model, guide, x, lengths, effort.particles, seeds=seeds, keep=False)
        estimates["smc"] = filtered.log_evidence
    return estimates


def same_model(runs: Sequence[Run]) -> bool:
    """Whether all runs have one model: the same settings and weights."""
    first = runs[0].model.state_dict()
    return all(
        run.settings.model == runs[0].settings.model
        and all(value.equal(first[name]) for name, value in run.model.state_dict().items())
        for run in runs
    )


def gaps(measured: Sequence[Measured], one_model: bool) -> list[Gaps]:
    """Put beside the bounds what is known of log p(x): the estimate with the largest mean, of all runs if the model is
    the same in all. Every estimate is a lower bound, in expectation.
    """
    bounds = [
        (name, value)
        for found in measured
        for name, value in found._asdict().items()
        if value is not None and not name.endswith("elbo")
    ]
    per_run = len(bounds) // len(measured)
    made = []
    for i, found in enumerate(measured):
        own = bounds if one_model else bounds[i * per_run : (i + 1) * per_run]
        name, best = max(own, key=lambda pair: float(pair[1].mean()))
        made.append(Gaps(found, best, name))
    return made
