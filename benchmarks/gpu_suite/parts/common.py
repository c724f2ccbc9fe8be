"""Shared by all parts: arguments, results, waiting for the device, and time limits."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_suite.results import append

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inference.settings.tree import Settings

__all__ = ["Work", "milliseconds", "recorded", "settings_of"]

TURNS = 20
"""Number of timed steps, unless they are slow."""
PATIENCE = 2.0
"""Seconds after which no further step is timed."""


class Work:
    """The arguments and results of a part.

    Attributes:
        model: name of the model; empty for parts without one.
        frames: T of a batch; `sequences` and `bins` are its N and F.
        settings: settings `key=value` of the model.
        scratch: folder for temporary files.
        corpus: name of the corpus to train on; `root` is its folder.
    """

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--model", default="")
        for name in ("frames", "sequences", "bins"):
            parser.add_argument(f"--{name}", type=int, default=4)
        for name in ("scratch", "corpus", "root"):
            parser.add_argument(f"--{name}")
        parser.add_argument("settings", nargs="*")
        args = parser.parse_intermixed_args()
        self.model, self.frames, self.sequences, self.bins = args.model, args.frames, args.sequences, args.bins
        self.settings, self.scratch, self.corpus, self.root = args.settings, args.scratch, args.corpus, args.root
        self.device_name: str = args.device
        variables = {name: os.environ.get(f"GPU_SUITE_{name}", "") for name in ("RESULTS", "PART", "SECONDS", "GATE")}
        self._results, self._part, self._gated = variables["RESULTS"], variables["PART"], bool(variables["GATE"])
        self._end = time.monotonic() + float(variables["SECONDS"] or 600.0)

    @property
    def device(self) -> torch.device:
        """The device; a gated part first waits until no other part uses it."""
        import torch

        if self._gated:
            self._gated = False
            self._end = time.monotonic() + float(sys.stdin.readline() or 600.0)
        return torch.device(self.device_name)

    @property
    def left(self) -> float:
        """Seconds until the time limit of this process."""
        return self._end - time.monotonic()

    def record(self, **figures: Any) -> None:
        """Write figures to the results file."""
        line = {"part": self._part, **figures}
        if self._results:
            append(Path(self._results), line)
        print(line, flush=True)

    def attempt(self, name: str, compute: Callable[[], dict[str, Any]]) -> None:
        """Record the figures of `compute`, or its error as `name`_error."""
        try:
            found = compute()
        except Exception as error:  # of any kind: other figures can still be measured
            import traceback

            traceback.print_exc()
            found = {f"{name}_error": f"{type(error).__name__}: {error}"[:1000]}
        self.record(**found)


def settings_of(work: Work, *more: str) -> Settings:
    """The settings of a run of the part's model at the part's sizes."""
    from inference.settings.resolve import resolve

    return resolve(work.model, overrides=[f"model.bins={work.bins}", *work.settings, *more])


def milliseconds(step: Callable[[], Any], device: torch.device, *, warmup: int = 3, turns: int = TURNS) -> float:
    """Median time of a step in milliseconds, synchronised with the device."""
    from benchmarks.timing import clock

    now, times = clock(device), list[float]()
    started = time.monotonic()
    for turn in range(warmup + turns):
        before = now()
        step()
        if turn >= warmup:
            times.append(now() - before)
        if times and time.monotonic() - started > PATIENCE:
            break
    return 1e3 * statistics.median(times)


def recorded(step: Callable[[], Any]) -> Callable[[], None]:
    """Capture a step as a CUDA graph; returns its replay."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def leaves(*shapes: tuple[int, ...], **more: Any) -> list[Tensor]:
    """Standard normal tensors that require gradients."""
    import torch

    return [torch.randn(shape, **more).requires_grad_() for shape in shapes]
