"""What parts share: their arguments, their results, the gate before the device, and time."""

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
"""Times that a step is timed, unless it is slow."""
PATIENCE = 2.0
"""Seconds after which it is not timed again."""


class Work:
    """A part at work.

    Attributes:
        model: the name of a model, for parts of one.
        frames: T of a batch; `sequences` and `bins` are its N and F.
        settings: `key=value` of the model.
        scratch: a folder for what is not a result.
        corpus: and `root`: the data to train on.
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
        told = {name: os.environ.get(f"GPU_SUITE_{name}", "") for name in ("RESULTS", "PART", "SECONDS", "GATE")}
        self._results, self._part, self._gated = told["RESULTS"], told["PART"], bool(told["GATE"])
        self._end = time.monotonic() + float(told["SECONDS"] or 600.0)

    @property
    def device(self) -> torch.device:
        """The device, which nobody else uses from now on."""
        import torch

        if self._gated:
            self._gated = False
            self._end = time.monotonic() + float(sys.stdin.readline() or 600.0)
        return torch.device(self.device_name)

    @property
    def left(self) -> float:
        """Seconds until this process is ended."""
        return self._end - time.monotonic()

    def record(self, **figures: Any) -> None:
        """Write figures down, now."""
        line = {"part": self._part, **figures}
        if self._results:
            append(Path(self._results), line)
        print(line, flush=True)

    def attempt(self, name: str, compute: Callable[[], dict[str, Any]]) -> None:
        """Record what `compute` finds, or as `name`_error why it failed; the rest goes on."""
        try:
            found = compute()
        except Exception as error:  # whatever it is, the other figures are wanted
            import traceback

            traceback.print_exc()
            found = {f"{name}_error": f"{type(error).__name__}: {error}"[:1000]}
        self.record(**found)


def settings_of(work: Work, *more: str) -> Settings:
    """The settings of a run of the part's model at the part's sizes."""
    from inference.settings.resolve import resolve

    return resolve(work.model, overrides=[f"model.bins={work.bins}", *work.settings, *more])


def milliseconds(step: Callable[[], Any], device: torch.device, *, warmup: int = 3, turns: int = TURNS) -> float:
    """Median time of a step, which waits for the device."""
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
    """A step on the device of CUDA as a graph, to be replayed."""
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
    """Standard normal tensors that want gradients."""
    import torch

    return [torch.randn(shape, **more).requires_grad_() for shape in shapes]
