"""Messages about a training: the line of an epoch, and at the end whether it had converged and what to try.

They are computed from the validation lines of ``metrics.jsonl``, in nats per frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pyro import poutine

from dvae_pyro.program_names import program
from inference.checkpoints.state import TrainState
from inference.objectives.elbo import BOUNDS
from inference.settings.tree import TrainSettings

if TYPE_CHECKING:
    from inference.training.job import Job

__all__ = [
    "UNUSED",
    "Convergence",
    "convergence",
    "dimensions_per_frame",
    "epoch_line",
    "unused_latents",
    "verdict",
    "verdict_of",
]

FEWEST = 4
"""Smallest number of validations for a statement about convergence."""
RISING = 0.01
"""Training had not converged if the last quarter has more than this share of the whole rise of the bound."""
FALLEN = 0.05
"""Training was too long if the bound has lost more than this share of its whole rise since its best."""
UNUSED = 0.01
"""A latent is hardly used if its KL is below this, in nats per dimension and draw."""


def epoch_line(state: TrainState, line: Mapping[str, Any], bound: float, train: TrainSettings) -> str:
    """The bound, its terms and the patience left, after a validation.

    Args:
        state: The state after it.
        line: The line of ``metrics.jsonl``.
        bound: The bound that selects the best weights.
        train: For the patience.

    Example:
        >>> state = TrainState(step=12, best=3.5, best_step=6, stale_epochs=1)
        >>> line = {"epoch": 2, "step": 12, "reconstruction": 4.0, "kl_z": 0.75}
        >>> epoch_line(state, line, 3.25, TrainSettings(patience=9))  # doctest: +ELLIPSIS
        'epoch 2, step 12: bound 3.250 nats per frame (best 3.500 at step 6), reconstruction 4.000, ... patience 8 of 9'
    """
    best = "(best)" if state.best_step == state.step else f"(best {state.best:.3f} at step {state.best_step})"
    terms = [f"{name} {line[name]:.3f}" for name in line if name == "reconstruction" or name.startswith("kl_")]
    left = [] if train.patience is None else [f"patience {train.patience - state.stale_epochs} of {train.patience}"]
    place = f"epoch {line['epoch']}, step {line['step']}"
    return f"{place}: " + ", ".join([f"bound {bound:.3f} nats per frame {best}", *terms, *left])


class Convergence(NamedTuple):
    """The course of the validation bound, in nats per frame.

    Attributes:
        rise: From the first validation to the best.
        late: Of that, what was gained in the last quarter of the validations.
        fall: From the best to the last.
        at_end: Whether the best is among the last tenth of the validations, two at least.
    """

    rise: float
    late: float
    fall: float
    at_end: bool

    @property
    def rising(self) -> bool:
        """The best bound is at the end, and the end added to it."""
        return self.at_end and self.late > RISING * self.rise

    @property
    def fallen(self) -> bool:
        """The bound has lost a part of its rise since its best, or never rose."""
        return self.fall > 0 and self.fall >= FALLEN * self.rise


def convergence(bounds: Sequence[float]) -> Convergence | None:
    """The course of the validation bounds of a training; None for fewer than `FEWEST`.

    Example:
        >>> convergence([0.0, 8.0, 9.0, 10.0, 10.0, 9.0])
        Convergence(rise=10.0, late=0.0, fall=1.0, at_end=False)
    """
    if len(bounds) < FEWEST:
        return None
    best = max(bounds)
    end = max(2, len(bounds) // 10)
    before = max(bounds[: -(-3 * len(bounds) // 4)])
    return Convergence(best - bounds[0], best - before, best - bounds[-1], bounds.index(best) >= len(bounds) - end)


def unused_latents(line: Mapping[str, Any], dimensions: Mapping[str, float]) -> dict[str, float]:
    """Latents that the model hardly uses, with their KL in nats per dimension of a draw.

    Args:
        line: A validation line, with ``kl_NAME`` in nats per frame.
        dimensions: For each latent, the dimensions drawn per frame: its size times draws per frame.

    Example:
        >>> unused_latents({"kl_z": 0.08, "kl_w": 0.08}, {"z": 16, "w": 0.2})
        {'z': 0.005}
    """
    shares = {name: line[f"kl_{name}"] / size for name, size in dimensions.items() if size and f"kl_{name}" in line}
    return {name: share for name, share in shares.items() if share < UNUSED}


def verdict(
    lines: Sequence[Mapping[str, Any]], criterion: str, dimensions: Mapping[str, float], *, resume: str
) -> list[str]:
    """Whether a training had converged, and what to try if it had not, the bound fell, or a latent is hardly used.

    Args:
        lines: The validation lines of ``metrics.jsonl``.
        criterion: The key of the bound that selects the best weights.
        dimensions: As in `unused_latents`.
        resume: The command that trains on.
    """
    found = convergence([float(line[criterion]) for line in lines])
    if found is None:
        return [f"validations: {len(lines)}, too few to tell whether the training had converged (expected {FEWEST})"]
    said = []
    if found.rising:
        share = 100.0 * found.late / found.rise
        said.append(
            f"not converged: the bound still rises, by {found.late:.3g} nats per frame in the last quarter "
            f"({share:.2g} % of its whole rise). Train on: {resume}"
        )
    elif found.fallen:
        said.append(
            f"the bound fell by {found.fall:.3g} nats per frame since its best, which best.pt holds. If the "
            "training loss went on falling, the model overfits: try more data, a smaller model, or optim.weight_decay; "
            "otherwise a lower optim.lr."
        )
    else:
        said.append(
            f"converged: the last quarter of the epochs added {found.late:.3g} nats per frame to the bound, of "
            f"{found.rise:.3g} in all"
        )
    best = max(lines, key=lambda line: float(line[criterion]))
    for name, share in unused_latents(best, dimensions).items():
        said.append(
            f"kl_{name} is nearly zero: {share:.2g} nats per dimension, below {UNUSED}: the model hardly uses "
            f"{name}. Try a longer warm-up (train.kl_warmup_epochs), free bits (train.free_bits.threshold), or a model "
            "whose decoder sees less of the past."
        )
    return said


def verdict_of(job: Job, step: int) -> list[str]:
    """`verdict` on a training that has ended at a step."""
    lines = [json.loads(text) for text in (job.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validations = [line for line in lines if line["split"] == "valid"]
    resume = f"{program('inference.svi')} --resume {job.run} train.steps={2 * step}"
    if job.settings.train.epochs is not None:
        resume += f" train.epochs={2 * job.settings.train.epochs}"
    return verdict(validations, BOUNDS[job.settings.train.objective], dimensions_per_frame(job), resume=resume)


def dimensions_per_frame(job: Job) -> dict[str, float]:
    """For each latent of the model, the numbers that the guide draws for a validation sequence, per frame."""
    x = job.valid.sequences[0].x[:, None].to(device=job.device, dtype=job.dtype)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        trace: Any = poutine.trace(job.guide).get_trace(x, torch.tensor([len(x)]))
    drawn = {name: trace.nodes[name]["value"] for name in job.model.latents if name in trace.nodes}
    return {name: value.numel() / len(x) for name, value in drawn.items()}
