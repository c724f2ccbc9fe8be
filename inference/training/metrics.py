"""Batch metrics, and an error for losses and gradients that are not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corpora.loading.sequences import Batch
from dvae_pyro.errors import UserError
from inference.objectives.elbo import BOUNDS, Bound

if TYPE_CHECKING:
    from inference.training.job import Job

__all__ = ["Line", "per_frame", "refuse_non_finite"]

Line = dict[str, float | int | str]


def per_frame(job: Job, bound: Bound, frames: int, weight: float, **more: Tensor) -> dict[str, float]:
    """Loss, bound and its terms in nats per frame, summed over all processes, with one transfer from the device."""
    values = {
        "loss": bound.loss.detach() / frames,
        **(
            {}
            if bound.multi_sample is None
            else {BOUNDS[job.settings.train.objective]: bound.multi_sample.sum() / frames}
        ),
        "elbo": bound.terms.elbo.sum() / frames,
        "reconstruction": bound.terms.reconstruction.sum() / frames,
        **{f"kl_{name}": kl.sum() / frames for name, kl in bound.terms.kl.items()},
        **{name: factor.sum() / frames for name, factor in bound.factors.items()},
    }
    summed = job.world.total(weight * torch.stack([value.double() for value in values.values()]))
    every = torch.cat([summed, *(value.double()[None] for value in more.values())])
    return dict(zip([*values, *more], every.tolist(), strict=True))


def refuse_non_finite(job: Job, line: Line, batch: Batch, bound: Bound) -> None:
    """Stop the run before the weights are updated, if a metric is not finite.

    Raises:
        UserError: with the files of the batch.
    """
    bad = [name for name, value in line.items() if not isinstance(value, str) and not math.isfinite(value)]
    if not bad:
        return
    what = "gradient" if bad == ["grad_norm"] else "loss"
    finite = torch.isfinite(bound.terms.elbo if bound.multi_sample is None else bound.multi_sample).tolist()
    suspects = job.world.all_gather({item.file for item, fine in zip(batch.items, finite, strict=True) if not fine})
    files = job.world.all_gather({item.file for item in batch.items})
    last = job.run / "last.pt"
    raise UserError(
        f"The {what} of step {line['step']} ({line['split']}) is not finite ({', '.join(bad)}); "
        "the weights were not updated.\n"
        f"Files of the batch: {', '.join(files)}."
        + (f" Not finite on: {', '.join(suspects)}." if suspects else "")
        + f"\nLast valid checkpoint: {last}. Resume from it with a smaller learning rate and clipping: "
        f"python -m inference.svi --resume {job.run} optim.lr={job.settings.optim.lr / 10:g} optim.clip=1"
    )
