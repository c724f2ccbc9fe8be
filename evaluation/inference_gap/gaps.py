"""Bounds of a guide and of its refinement, and the approximation and amortisation gaps that follow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corpora.loading.sequences import Prepared
from dvae_pyro.progress import progress_bar
from evaluation.loading.splits import batches
from guides.core.guide import Guide
from inference.estimation.importance import estimate
from inference.estimation.individual_normal import IndividualNormal, individual_normal
from inference.estimation.refinement import refine, remembers
from inference.handlers.free_running import free_running
from inference.particles.particle_filter import smc
from inference.runs import Run, pick_dtype

__all__ = ["Bounds", "Effort", "Gaps", "gaps", "measure", "same_model"]


class Effort(NamedTuple):
    """Size of the computation.

    Attributes:
        particles: K of importance weights, particle filter and bounds.
        steps: gradient steps of the refinement.
        lr: learning rate of the refinement.
        chunk: particles of a batch that are computed at once.
    """

    particles: int
    steps: int
    lr: float
    chunk: int


class Bounds(NamedTuple):
    """Bounds of one run, with its guide and with the refined guide, in nats per frame of each sequence, (N,).

    Those of the particle filter are None for a model without a step; those of a guide without amortisation
    (`inference.estimation.individual_normal`) are None unless it is asked for.
    """

    elbo: Tensor
    iwae: Tensor
    smc: Tensor | None
    refined_elbo: Tensor
    refined_iwae: Tensor
    refined_smc: Tensor | None
    auto_normal_elbo: Tensor | None = None
    auto_normal_iwae: Tensor | None = None


class Gaps(NamedTuple):
    """Bounds of one run and its gaps, in nats per frame of each sequence, (N,).

    Attributes:
        bounds: the bounds.
        log_evidence: the best lower bound on log p(x) of this run, or of all runs with the same model.
        best: name of that bound.
    """

    bounds: Bounds
    log_evidence: Tensor
    best: str

    @property
    def approximation(self) -> Tensor:
        """log p(x) - ELBO[q*]."""
        return self.log_evidence - self.bounds.refined_elbo

    @property
    def amortisation(self) -> Tensor:
        """ELBO[q*] - ELBO[q]."""
        return self.bounds.refined_elbo - self.bounds.elbo

    @property
    def auto_normal(self) -> Tensor | None:
        """log p(x) - ELBO[factorised Gaussian of each sequence]."""
        elbo = self.bounds.auto_normal_elbo
        return None if elbo is None else self.log_evidence - elbo


def measure(
    run: Run, sequences: Sequence[Prepared], effort: Effort, mode: str = "gt", *, auto_normal: bool = False
) -> Bounds:
    """Refine the guide of a run for sequences, and estimate the bounds of both guides.

    Args:
        run: the run. Both guides are evaluated with the same noise, which follows the run's seed and differs from that
            of the refinement.
        sequences: the data.
        effort: size of the computation.
        mode: "gt", the decoder is given the true past, or "gen", its own output.
        auto_normal: also fit a guide without amortisation, with the same effort.
    """
    rows: dict[str, list[Any]] = {name: [None] * len(sequences) for name in Bounds._fields}
    settings = run.settings
    total = effort.steps * len(list(batches(sequences))) * (2 if auto_normal else 1)
    with progress_bar(f"refining {settings.guide.name}", total, "step") as bar, torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for indices, batch in batches(sequences):
            x = batch.x.to(device=settings.device, dtype=pick_dtype(settings.dtype))
            with free_running() if mode == "gen" else ExitStack():
                data = (run.model, run.guide, x, batch.lengths)
                how: dict[str, Any] = {"steps": effort.steps, "lr": effort.lr, "progress": bar.update}
                how["seeds"] = [f"{settings.seed}/refine/{index}" for index in indices]
                depends = remembers(run.guide, run.settings.guide, run.model.latents)
                guides: dict[str, Guide | IndividualNormal] = {"": run.guide}
                guides["refined_"] = refine(*data, remembers=depends, **how)
                if auto_normal:
                    guides["auto_normal_"] = individual_normal(*data, **how)
                seeds = [f"{settings.seed}/{index}" for index in indices]
                for prefix, guide in guides.items():
                    for name, nats in _estimates(run, guide, x, batch.lengths, effort, seeds).items():
                        for index, value in zip(indices, (nats.cpu() / batch.lengths).tolist(), strict=True):
                            rows[prefix + name][index] = value
    bounds: dict[str, Any] = {k: None if None in row else torch.tensor(row).double() for k, row in rows.items()}
    return Bounds(**bounds)


def _estimates(
    run: Run, guide: Guide | IndividualNormal, x: Tensor, lengths: Tensor, effort: Effort, seeds: Sequence[str]
) -> dict[str, Tensor]:
    weighted = estimate(run.model, guide, x, lengths, effort.particles, chunk=effort.chunk, seeds=seeds)
    estimates = {"elbo": weighted.analytic, "iwae": weighted.iwae}
    if run.model.stepwise and isinstance(guide, Guide):
        with torch.no_grad():
            filtered = smc(run.model, guide, x, lengths, effort.particles, seeds=seeds, keep=False)
        estimates["smc"] = filtered.log_evidence
    return estimates


def same_model(runs: Sequence[Run]) -> bool:
    """Whether the models of all runs have the same settings and weights."""
    first = runs[0].model.state_dict()
    return all(
        run.settings.model == runs[0].settings.model
        and all(value.equal(first[name]) for name, value in run.model.state_dict().items())
        for run in runs
    )


def gaps(bounds: Sequence[Bounds], one_model: bool) -> list[Gaps]:
    """The gaps of each run, log p(x) being the largest bound on average; each bound is a lower bound in expectation.

    Args:
        bounds: the bounds of each run.
        one_model: whether the runs have the same model, so that each bound is one on the log p(x) of all.
    """
    named = [
        [(name, value) for name, value in of_run._asdict().items() if value is not None and not name.endswith("elbo")]
        for of_run in bounds
    ]
    results = []
    for of_run, own in zip(bounds, named, strict=True):
        candidates = [pair for of_each in named for pair in of_each] if one_model else own
        name, best = max(candidates, key=lambda pair: float(pair[1].mean()))
        results.append(Gaps(of_run, best, name))
    return results
