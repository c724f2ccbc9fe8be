"""Logs of a run: `metrics.jsonl`, TensorBoard events and the progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.files import disk_errors
from dvae_pyro.progress import progress_bar
from inference.training.monitor.writers import open_writers

__all__ = ["MetricsLog", "ProgressBar", "Speed", "bytes_until"]


class MetricsLog:
    """`metrics.jsonl`, one JSON object per line, and the same numbers, sounds and pictures for TensorBoard and others.

    Args:
        run: the run folder.
        keep: bytes of an existing `metrics.jsonl` to keep; the rest (lines after the checkpoint, possibly an incomplete
            one) is truncated.
        step: the step of the last kept line; TensorBoard hides events after it.
        loggers: names of the further writers (`inference.training.monitor.writers`).
    """

    def __init__(self, run: Path, *, keep: int = 0, step: int = 0, loggers: Sequence[str] = ("tensorboard",)) -> None:
        self.path = run / "metrics.jsonl"
        with disk_errors(self.path):
            self._stream = open(self.path, "ab", buffering=0)
        try:
            with disk_errors(self.path):
                self._stream.truncate(min(keep, self.path.stat().st_size))
                self.writers = open_writers(loggers, run, step)
        except BaseException:
            self._stream.close()
            raise

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line, and its numbers as events of the line's step and split."""
        with disk_errors(self.path):
            rest = json.dumps(dict(line)).encode() + b"\n"
            while rest:  # a write may be partial on an almost full disk
                rest = rest[self._stream.write(rest) :]
            numbers = {
                f"{line['split']}/{name}": value
                for name, value in line.items()
                if name != "step" and not isinstance(value, str)
            }
            for writer in self.writers:
                writer.scalars(numbers, line["step"])

    def sound(self, name: str, samples: NDArray[np.float32], rate: int, step: int) -> None:
        """A sound, full scale 1, for the writers that take sounds."""
        with disk_errors(self.path.parent):
            for writer in self.writers:
                writer.sound(name, samples, rate, step)

    def picture(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """A picture (height, width, 3)."""
        with disk_errors(self.path.parent):
            for writer in self.writers:
                writer.picture(name, pixels, step)

    def sync(self) -> int:
        """Flush all lines to the disk; returns the size of the file in bytes, which checkpoints store."""
        with disk_errors(self.path):
            os.fsync(self._stream.fileno())
            for writer in self.writers:
                writer.flush()
            return os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        """Close both logs."""
        self._stream.close()
        with disk_errors(self.path.parent):
            for writer in self.writers:
                writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bytes_until(path: Path, step: int) -> int:
    """Size in bytes of the lines of a `metrics.jsonl` up to a step, for a checkpoint that does not store it."""
    size = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        try:
            if json.loads(line)["step"] > step or not line.endswith(b"\n"):
                break
        except (ValueError, LookupError, TypeError):
            break
        size += len(line)
    return size


class ProgressBar:
    """Progress, remaining time, loss and throughput on stderr; updated every 30 s where stderr is not a terminal."""

    def __init__(self, total: int, done: int, *, shown: bool = True) -> None:
        self._shown = shown
        self._bar = progress_bar(
            None,
            total,
            "step",
            shown=shown,
            initial=done,
            bar_format="training {percentage:3.0f}% |{bar}| step {n_fmt}/{total_fmt} "
            "[{elapsed}, {remaining} left{postfix}]",
        )
        rewritten = shown and sys.stderr.isatty()
        self._line = progress_bar(None, 1, "epoch", position=1, bar_format="{desc}") if rewritten else None

    def advance(self, text: str) -> None:
        """Advance by one step; `text` is shown beside the bar."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._shown:
            self._bar.write(text, file=sys.stderr)

    def epoch(self, text: str) -> None:
        """Show the line of an epoch: below the bar in place of the last one, or as a line of its own in a file."""
        if self._line is None:
            self.say(text)
        else:
            self._line.set_description_str(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._line is not None:
            self._line.close()


class Speed:
    """Frames per second since the last lap, and the fraction of that time spent waiting for data."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._frames, self._waited, self._since = 0, 0.0, time.perf_counter()

    def add(self, frames: int) -> None:
        self._frames += frames
        if self.rate == 0.0:
            self.rate = self._frames / (time.perf_counter() - self._since)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within the context as waiting for data."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def lap(self) -> dict[str, float]:
        """Both, by their keys in metrics.jsonl; starts a new lap."""
        seconds = time.perf_counter() - self._since
        self.rate = self._frames / seconds
        waited = self._waited / seconds
        self.restart()
        return {"frames_per_second": self.rate, "data_wait": waited}

    def restart(self) -> None:
        self._frames, self._waited, self._since = 0, 0.0, time.perf_counter()
