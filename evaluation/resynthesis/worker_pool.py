"""Metrics of many waveforms on all cores.

The workers are fresh processes that do not import torch: the model stays in the calling process, which decodes the
next utterances while the workers score these. PESQ crashes on signals with more than about fifty intervals of speech (a
fixed table in its C code); if a worker crashes, the pair that caused it loses its PESQ figure, and the evaluation
continues.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

from dvae_pyro.errors import UserError

if TYPE_CHECKING:  # a worker must set its threads before numpy is first imported
    from evaluation.resynthesis.metrics import Scores, Signal

__all__ = ["Pair", "all_cores", "score_all"]

Tag = TypeVar("Tag")


class Pair(NamedTuple):
    """Two waveforms of equal length, their rate in Hz, and whether to compute PESQ."""

    reference: Signal
    estimate: Signal
    rate: int
    with_pesq: bool = True


def all_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def score_all(pairs: Iterable[tuple[Tag, Pair]], jobs: int) -> Iterator[tuple[Tag, Scores]]:
    """Score pairs of waveforms as they come; results come back in the order in which they are ready.

    Args:
        pairs: (tag, pair), the tag being any value; read only as fast as the workers score, which bounds memory.
        jobs: worker processes; 0 scores in this process. They are spawned: a script that calls this with jobs > 0
            needs ``if __name__ == "__main__":``.

    Yields:
        (tag, scores).
    """
    if jobs == 0:
        for tag, pair in pairs:
            yield tag, _score(pair)
        return
    with _Workers[Tag](jobs) as workers:
        for tag, pair in pairs:
            workers.submit(tag, pair)
            while workers.busy:
                yield from workers.collect()
        while workers.running:
            yield from workers.collect()


class _Workers(Generic[Tag]):
    """A pool of processes that continues after a worker has crashed."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: dict[Future[Scores], tuple[Tag, Pair]] = {}
        self.rescored: list[tuple[Tag, Scores]] = []
        self.pool = _pool(jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether enough pairs are submitted; further ones would only use memory."""
        return len(self.running) >= 4 * self.jobs

    def submit(self, tag: Tag, pair: Pair) -> None:
        try:
            future = self.pool.submit(_score, pair)
        except BrokenProcessPool:  # a worker has crashed since the last `collect`
            self.rescored += self._rescore([])
            future = self.pool.submit(_score, pair)
        self.running[future] = tag, pair

    def collect(self) -> list[tuple[Tag, Scores]]:
        """Wait for results and return them."""
        ready, self.rescored = self.rescored, []
        lost: list[tuple[Tag, Pair]] = []
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            tag, pair = self.running.pop(future)
            try:
                ready.append((tag, future.result()))
            except BrokenProcessPool:
                lost.append((tag, pair))
        return ready + self._rescore(lost) if lost else ready

    def _rescore(self, lost: list[tuple[Tag, Pair]]) -> list[tuple[Tag, Scores]]:
        """Score all unfinished pairs again, each in a process of its own: which pair crashed the worker is unknown."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        ready: list[tuple[Tag, Scores]] = []
        for future, (tag, pair) in self.running.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                ready.append((tag, future.result()))
            else:
                lost.append((tag, pair))
        self.running.clear()
        self.pool = _pool(self.jobs)
        return ready + [(tag, _score_alone(pair)) for tag, pair in lost]


def _score_alone(pair: Pair) -> Scores:
    for with_pesq in (True, False):
        with _pool(1) as pool:
            try:
                return pool.submit(_score, pair, with_pesq).result()
            except BrokenProcessPool:
                continue
    raise UserError(
        "A process that computes metrics crashed twice, also without PESQ. Memory may have run out: use fewer --jobs."
    )


def _score(pair: Pair, with_pesq: bool = True) -> Scores:
    from evaluation.resynthesis.metrics import score  # imports numpy, after `_quiet_worker` has set the threads

    return score(pair.reference, pair.estimate, pair.rate, with_pesq=with_pesq and pair.with_pesq)


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet_worker)


def _quiet_worker() -> None:
    """Use one thread per worker, and ignore Ctrl-C, which the parent handles."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
