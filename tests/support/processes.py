"""Several processes that train together, started without torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.support.ports import free_ports

__all__ = ["run_together"]


def run_together(
    program: str, jobs: Sequence[Sequence[Any]], *, size: int = 2, seconds: int = 400
) -> tuple[list[list[str]], list[str]]:
    """Run a program in several processes, which take jobs one after another.

    Args:
        program: Python code; its argument is a JSON list of jobs, each of a port, for MASTER_PORT, and its own fields.
        jobs: the fields of each job.
        size: number of processes.
        seconds: time limit.

    Returns:
        Of each process, the lines of its output, and its standard error.
    """
    told = json.dumps([(port, *job) for port, job in zip(free_ports(len(jobs)), jobs, strict=True)], default=str)
    environment = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, told],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        ends = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(error[-3000:] for _, error in ends)
    return [out.splitlines() for out, _ in ends], [error for _, error in ends]
