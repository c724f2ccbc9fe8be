"""Runs stages as processes within a time limit: a part that fails or hangs affects neither other parts nor results."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_suite.outcomes import figures_of
from benchmarks.gpu_suite.results import Line, append
from benchmarks.gpu_suite.stages import PACKING, ROOT, Part, Stage, fitting

__all__ = ["EARLY", "Driver"]

EARLY = 40.0
"""A process that fails within this time (seconds) may be started again without its arguments `Part.without`."""
GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL, in which a training saves its state."""
PAUSE = 0.1


class _Process:
    """The process of a part.

    Args:
        part: the part.
        results: the file for its results.
        log: the file for its output.
        seconds: time limit, passed to the process.
        threads: number of CPU threads.
        gated: whether the process waits for `open` before it uses the device.
    """

    def __init__(self, part: Part, results: Path, log: Path, seconds: float, threads: int, *, gated: bool) -> None:
        self.part, self.log, self.gated = part, log, gated
        self.started = time.monotonic()
        self.limit = self.started + seconds
        variables = {"RESULTS": str(results), "PART": part.name, "SECONDS": str(seconds), "GATE": "1" if gated else ""}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                part.command,
                stdin=subprocess.PIPE if gated else subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    **os.environ,
                    **{f"GPU_SUITE_{name}": value for name, value in variables.items()},
                    **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
                    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
                    "MPLBACKEND": "Agg",
                },
                start_new_session=True,
            )

    def open(self, limit: float) -> None:
        """Permit the use of the device until the time `limit`."""
        if self.gated:
            self.gated, self.limit = False, limit
            with contextlib.suppress(OSError):
                if self.process.stdin is not None:
                    self.process.stdin.write(f"{limit - time.monotonic():.1f}\n".encode())
                    self.process.stdin.close()

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill the process and its children; a process that hangs in a system call is not waited for."""
        self.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5.0)
        if self.process.stdin is not None:
            self.process.stdin.close()


class Driver:
    """Runs stages.

    Args:
        out: folder for results.jsonl and log.txt.
        scratch: folder for files of the parts.
        seconds: time limit, including `stages.PACKING`.
        cores: number of CPU cores.
    """

    def __init__(self, out: Path, scratch: Path, seconds: float, cores: int) -> None:
        self.out, self.scratch, self.cores = out, scratch, cores
        self.end = time.monotonic() + seconds - PACKING
        self.background: dict[str, list[_Process]] = {}
        self._gathered: dict[Path, int] = {}
        for name in ("results", "logs"):
            (scratch / name).mkdir(parents=True, exist_ok=True)

    def run(self, every: Sequence[Stage]) -> None:
        """Run the stages that fit in the time; the outcome of each part is a line of results.jsonl."""
        kept = fitting(every, self.end - time.monotonic())
        for stage in every:
            if stage not in kept:
                self._leave_out(stage.parts, "does not fit in the time limit")
        try:
            while kept:
                stage, *kept = kept
                left = self.end - time.monotonic()
                for_later = sum(other.least for other in kept)
                if left < stage.least / 2:
                    self._leave_out(stage.parts, "no time left")
                elif stage.background:
                    self.background[stage.name] = [p for part in stage.parts for p in self._start(part, left, 1)]
                else:
                    self._wait_for(stage.needs, (left - for_later) / 4)
                    seconds = max(stage.least / 2, self.end - time.monotonic() - for_later)
                    self._run(stage, min(seconds, stage.most or seconds))
        finally:
            for running in self.background.values():
                self._stop(running)
            self.gather()

    def gather(self) -> None:
        """Append new results of the parts to results.jsonl."""
        for path in sorted((self.scratch / "results").iterdir()):
            done = self._gathered.get(path, 0)
            with path.open("rb") as stream:
                stream.seek(done)
                new = stream.read()
            new = new[: new.rfind(b"\n") + 1]
            if new:
                with (self.out / "results.jsonl").open("ab") as stream:
                    stream.write(new)
                self._gathered[path] = done + len(new)

    def _run(self, stage: Stage, seconds: float) -> None:
        started = time.monotonic()
        deadline = started + seconds - (GRACE if any(part.run for part in stage.parts) else 0.0)
        self._say(f"{stage.name}: {len(stage.parts)} parts, {seconds:.0f} s")
        waiting, running = list(stage.parts), list[_Process]()
        room = stage.at_once + (1 if stage.gated else 0)
        threads = max(1, self.cores // room)
        try:
            while (waiting or running) and time.monotonic() < deadline:
                while waiting and len(running) < room:
                    part = waiting.pop(0)
                    limit = self._limit(deadline, len(waiting) + 1, stage.at_once)
                    running += self._start(part, limit - time.monotonic(), threads, gated=stage.gated)
                for process in running[: stage.at_once]:
                    process.open(self._limit(deadline, len(waiting) + len(running), stage.at_once))
                for process in [process for process in running if self._ended(process)]:
                    running.remove(process)
                    if self._died_early(process):
                        part = process.part
                        self._say(f"{part.name}: started again without {' '.join(part.without)}")
                        command = [text for text in part.command if text not in part.without]
                        waiting.insert(0, part._replace(command=command, without=()))
                        _move_away(part.run)
                    else:
                        self._finish(process)
                self.gather()
                time.sleep(PAUSE)
        finally:
            self._stop(running)
            self._leave_out(waiting, "no time left")
            self.gather()

    def _limit(self, deadline: float, parts: int, at_once: int) -> float:
        """The time limit of a part: twice its share of the time left in its stage."""
        now = time.monotonic()
        share = (deadline - now) / -(-parts // at_once)
        return min(deadline, now + max(10.0, 2.0 * share))

    def _start(self, part: Part, seconds: float, threads: int, *, gated: bool = False) -> list[_Process]:
        """Start a part; an empty list if that fails."""
        name = part.name.replace("/", "-")
        results, log = (self.scratch / kind / f"{name}.{end}" for kind, end in (("results", "jsonl"), ("logs", "txt")))
        try:
            return [_Process(part, results, log, seconds, threads, gated=gated)]
        except OSError as error:
            self._write(part, {"status": "failed", "end": str(error)})
            return []

    def _ended(self, process: _Process) -> bool:
        """Whether a process has ended; one that exceeds its time limit is killed."""
        if process.process.poll() is None and not process.gated and time.monotonic() > process.limit:
            process.kill()
        return process.process.poll() is not None

    def _died_early(self, process: _Process) -> bool:
        failed = process.process.poll() not in process.part.ok
        return failed and bool(process.part.without) and time.monotonic() - process.started < EARLY

    def _wait_for(self, name: str, seconds: float) -> None:
        """Wait for a stage in the background, at most the given time."""
        until = time.monotonic() + seconds
        while any(p.process.poll() is None for p in self.background.get(name, [])) and time.monotonic() < until:
            time.sleep(PAUSE)
        self._stop(self.background.pop(name, []))

    def _stop(self, running: list[_Process]) -> None:
        """Stop processes by SIGTERM, then by SIGKILL."""
        asked = [process for process in running if process.process.poll() is None]
        for process in asked:
            process.signal(signal.SIGTERM)
        until = time.monotonic() + GRACE
        while any(process.process.poll() is None for process in asked) and time.monotonic() < until:
            time.sleep(PAUSE)
        for process in running:
            process.kill()
            self._finish(process, asked=process in asked)

    def _finish(self, process: _Process, *, asked: bool = False) -> None:
        """Record the outcome of a part and its figures."""
        part, code = process.part, process.process.returncode
        if code in part.ok:
            status = "done"
        else:
            status = "out of time" if asked or code in (None, -signal.SIGKILL) else "failed"
        line: Line = {"status": status, "seconds": round(time.monotonic() - process.started, 1), "code": code}
        if status != "done" or part.keep_output:
            line["end"] = process.log.read_bytes()[-1500:].decode(errors="replace")
        self._write(part, {**line, **figures_of(part)})

    def _leave_out(self, parts: Sequence[Part], why: str) -> None:
        for part in parts:
            self._write(part, {"status": "left out", "end": why})

    def _write(self, part: Part, line: Line) -> None:
        self.gather()
        append(self.out / "results.jsonl", {"part": part.name, **line})
        if line["status"] != "done":
            last = str(line["end"]).strip().splitlines()[-1:] if line["status"] != "out of time" else []
            self._say(f"{part.name}: {line['status']}: {' '.join(last)}")

    def _say(self, text: str) -> None:
        left = self.end - time.monotonic()
        with (self.out / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{left:6.1f} s left: {text}\n")
        print(f"{left:6.1f} s left: {text}", flush=True)


def _move_away(run: Path | None) -> None:
    """Rename the run folder of a failed part, so that its second try can use the name."""
    if run is not None and run.exists():
        run.rename(run.with_name(f"{run.name}.first"))
