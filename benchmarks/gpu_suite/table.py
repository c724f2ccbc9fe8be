"""The table of results, and the outcome of every part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu_suite.results import Line

__all__ = ["table"]

COLUMNS = {
    "stepwise": ("timing", "stepwise_ms", ".1f"),
    "eager": ("timing", "eager_ms", ".2f"),
    "recorded": ("timing", "recorded_ms", ".2f"),
    "bf16": ("timing", "bf16_ms", ".2f"),
    "floor": ("timing", "floor_ms", ".3f"),
    "/floor": ("timing", "over_floor", ".1f"),
    "stepw/": ("timing", "times_stepwise", ".0f"),
    "f64": ("agreement", "float64", ".0e"),
    "f32": ("agreement", "float32", ".0e"),
    "tf32": ("agreement", "tf32", ".0e"),
    "rec": ("agreement", "recorded", ".0e"),
    "bf16 ": ("agreement", "bf16", ".0e"),
    "refine": ("agreement", "refinement", ""),
    "loop": ("loops", "recorded_looped_ms", ".2f"),
    "fused": ("loops", "recorded_fused_ms", ".2f"),
    "fused=": ("loops", "difference", ".0e"),
    "steps": ("training", "step", "d"),
    "fr/s": ("training", "frames_per_second", ".0f"),
    "first": ("training", "first", ".1f"),
    "best": ("training", "best", ".1f"),
}
"""For each column: title, stage, figure and format."""


def table(lines: Sequence[Line]) -> str:
    """Milliseconds of a step, largest relative errors, and trainings by model, followed by the parts that failed.

    A missing figure is shown as a dash, one whose computation failed as an exclamation mark.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        found.setdefault(line["part"], {}).update(line)
    models = list(dict.fromkeys(part.split("/")[1] for part in found if part.split("/")[0] in ("agreement", "timing")))
    machine = found.get("machine", {})
    rows = [["model", *COLUMNS]]
    rows += [
        [model, *(_cell(found.get(f"{s}/{model}", {}), key, form) for s, key, form in COLUMNS.values())]
        for model in models
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [f"{machine.get('card', 'unknown device')}, torch {machine.get('torch', '?')}", ""]
    text += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    text += ["", _constants(found.get("constants", {}))]
    tests = {name: line for name, line in found.items() if name.startswith("tests/")}
    text += [f"{name}: {line.get('status')}: {_last(line.get('end', ''))}" for name, line in tests.items()]
    bad = {name: line for name, line in found.items() if line.get("status", "done") != "done" and name not in tests}
    text += [f"{name}: {line['status']}: {_last(line.get('end', ''))}" for name, line in bad.items()]
    ended = [line["status"] for line in found.values() if "status" in line]  # packing is no part
    return "\n".join([*text, f"{ended.count('done')} of {len(ended)} parts are done"])


def _cell(line: Line, key: str, form: str) -> str:
    if key not in line:
        return "!" if f"{key}_error" in line else "-"
    value = line[key]
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _constants(line: Line) -> str:
    return ", ".join(
        f"{key} {value:.4g}" for key, value in line.items() if isinstance(value, float) and key != "seconds"
    )


def _last(text: str) -> str:
    return " ".join(str(text).strip().splitlines()[-1:])[:200]
