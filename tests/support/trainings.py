"""Small trainings, what they log, and an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.settings.resolve import resolve
from inference.training.job import Job
from inference.training.session import start
from inference.training.steps import train_step

__all__ = ["Lines", "lines", "quiet", "same_weights", "stop_after", "train"]

Lines = list[dict[str, Any]]


def quiet(line: str) -> None:
    """Where the tests send what a run says."""


def lines(run: Path) -> Lines:
    """metrics.jsonl without what no clock repeats."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_second", "data_wait")} for line in found]


def train(run: Path, tiny: list[str], *more: str, model: str = "dkf") -> Path:
    return start(resolve(model, overrides=[*tiny, f"run={run}", *more]), quiet)


def same_weights(a: dict[str, Any], b: dict[str, Any]) -> bool:
    parts = [(a[part], b[part]) for part in ("model", "guide")]
    return all(torch.equal(x[name], y[name]) for x, y in parts for name in x)


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training fail as if the machine had gone, after this many further steps."""
    done = {"steps": 0}

    def counted(job: Job, *args: Any) -> Any:
        if done["steps"] == steps:
            raise RuntimeError("power cut")
        done["steps"] += 1
        return train_step(job, *args)

    monkeypatch.setattr("inference.training.loop.train_step", counted)
