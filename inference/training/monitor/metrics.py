"""Batch metrics, read one batch late, and an error for losses and gradients that are not finite.

Reading a number from a device waits until it is computed. The metrics of a batch are therefore copied to the host in
the background and read once the next batch has been queued, so that the device always has work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from corpora.loading.sequences import Batch
from dvae_pyro.errors import UserError
from inference.objectives.elbo import BOUNDS, Bound

if TYPE_CHECKING:
    from inference.training.job import Job

__all__ = ["Late", "Line", "Measured", "late_lines", "measure"]

Line = dict[str, float | int | str]


class Measured(NamedTuple):
    """The metrics of a batch, on their way to the host.

    Attributes:
        before: the fields of the line before the metrics: step, epoch and split.
        names: names of the metrics.
        values: the metrics, and for each sequence of this process whether its bound is finite; on the host when
            `copied` has happened.
        copied: None where nothing is to be waited for.
        after: the fields after the metrics.
        batch: the sequences.
    """

    before: Line
    names: Sequence[str]
    values: Tensor
    copied: torch.cuda.Event | None
    after: Line
    batch: Batch

    def read(self, job: Job) -> Line:
        """The line of metrics.jsonl; waits for the computation of this batch, not for later ones.

        Raises:
            UserError: if a metric is not finite, with the files of the batch.
        """
        if self.copied is not None:
            self.copied.synchronize()
        numbers = self.values.tolist()
        metrics = dict(zip(self.names, numbers, strict=False))
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise self._not_finite(job, bad, numbers[len(self.names) :])
        last = {name: metrics.pop(name) for name in ("grad_norm",) if name in metrics}
        return {**self.before, **metrics, **self.after, **last}

    def _not_finite(self, job: Job, bad: Sequence[str], finite: Sequence[float]) -> UserError:
        what = "gradient" if bad == ["grad_norm"] else "loss"
        items = zip(self.batch.items, finite, strict=True)
        suspects = job.world.all_gather({item.file for item, fine in items if not fine})
        files = job.world.all_gather({item.file for item in self.batch.items})
        last = job.run / "last.pt"
        return UserError(
            f"The {what} of step {self.before['step']} ({self.before['split']}) is not finite ({', '.join(bad)}); "
            "its weights are not saved.\n"
            f"Files of the batch: {', '.join(files)}."
            + (f" Not finite on: {', '.join(suspects)}." if suspects else "")
            + f"\nLast valid checkpoint: {last}. Resume from it with a smaller learning rate and clipping: "
            f"python -m inference.svi --resume {job.run} optim.lr={job.settings.optim.lr / 10:g} optim.clip=1"
        )


def measure(
    job: Job, batch: Batch, bound: Bound, frames: int, weight: float, before: Line, after: Line, **more: Tensor
) -> Measured:
    """Start to measure a batch: loss, bound and its terms in nats per frame, summed over all processes.

    Args:
        job: the training.
        batch: the sequences.
        bound: their bound.
        frames: the number that sums are divided by.
        weight: 1, or 0 where the batch is excluded.
        before: the fields of the line before the metrics.
        after: the fields after them.
        more: further metrics, equal in all processes.
    """
    multi_sample = {} if bound.multi_sample is None else {BOUNDS[job.settings.train.objective]: bound.multi_sample}
    sums = {
        "loss": bound.loss.detach(),
        **multi_sample,
        "elbo": bound.terms.elbo,
        "reconstruction": bound.terms.reconstruction,
        **{f"kl_{name}": kl for name, kl in bound.terms.kl.items()},
        **bound.factors,
    }
    summed = job.world.total(weight * torch.stack([(value.sum() / frames).double() for value in sums.values()]))
    finite = torch.isfinite(bound.terms.elbo if bound.multi_sample is None else bound.multi_sample).double()
    values = torch.cat([summed, *(value.double()[None] for value in more.values()), finite])
    copied = None
    if values.is_cuda:
        values = values.to("cpu", non_blocking=True)  # to pinned memory
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(job.device))
    return Measured(before, [*sums, *more], values, copied, after, batch)


class Late:
    """Reads the metrics of each batch one batch later.

    Args:
        job: the training.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._waiting: tuple[Measured, Callable[[Line], None]] | None = None

    def add(self, measured: Measured, then: Callable[[Line], None]) -> None:
        """Keep the metrics of a batch that is queued, and read those of the batch before.

        Args:
            measured: the metrics.
            then: called with their line when it is read.

        Raises:
            UserError: if a metric of the batch before is not finite.
        """
        self.settle()
        self._waiting = measured, then

    def settle(self) -> None:
        """Read the metrics that are still kept. Before weights are saved or validated, they must be finite.

        Raises:
            UserError: if one is not finite.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            measured, then = waiting
            then(measured.read(self.job))


def late_lines(job: Job, measured: Iterable[Measured]) -> Iterator[Line]:
    """The lines of batches, each read when the next one is queued."""
    late, lines = Late(job), list[Line]()
    for one in measured:
        late.add(one, lines.append)
        yield from lines
        lines.clear()
    late.settle()
    yield from lines
