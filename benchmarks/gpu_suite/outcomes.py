"""The figures of trainings and evaluations that are parts of the suite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.gpu_suite.results import Line, read

if TYPE_CHECKING:
    from benchmarks.gpu_suite.stages import Part

__all__ = ["figures_of"]


def figures_of(part: Part) -> Line:
    """Steps, speed and bounds of a training, or metrics of an evaluation, as far as they exist."""
    if part.run is not None:
        lines = read(part.run / "metrics.jsonl")
        steps = [line for line in lines if line.get("split") == "train"]
        valid = [float(line["elbo"]) for line in lines if line.get("split") == "valid"]
        speeds = sorted(float(line["frames_per_second"]) for line in steps if "frames_per_second" in line)
        found: Line = {"recorded": any(text in part.command for text in part.without)}
        found |= {"step": steps[-1]["step"]} if steps else {}
        found |= {"frames_per_second": speeds[len(speeds) // 2]} if speeds else {}
        return found | ({"first": valid[0], "best": max(valid)} if valid else {})
    if part.report is not None and part.report.is_file():
        return {"metrics": json.loads(part.report.read_text(encoding="utf-8"))["metrics"]}
    return {}
