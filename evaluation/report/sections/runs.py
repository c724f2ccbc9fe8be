"""Section 2: each run's factorisation, graph, guide, parameters and time, and the settings that differ."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf

from evaluation.report.collect import RunFolder
from evaluation.report.graph import graph
from evaluation.report.page import Page, formula
from guides.registry import compare
from inference.runs import create
from inference.summary import structure, total
from models.structure.formulas import factorisation, outside_time, ranges

__all__ = ["differing_settings", "section", "training_hours"]

NOT_SHOWN = ("run", "device", "model.name", "guide.name", "data.cache")


def section(page: Page) -> dict[str, Any]:
    """A card for each run, and the table of the settings that differ."""
    return {
        "cards": [_card(run, page.colour(run)) for run in page.runs],
        "names": [run.name for run in page.runs],
        "settings": differing_settings(page.runs),
    }


def _card(run: RunFolder, colour: int) -> dict[str, Any]:
    settings = run.settings
    declared = structure(settings)
    outside = outside_time(declared.model, declared.guide)
    best, last = run.best, max((line["step"] for line in run.lines), default=0)
    hours = training_hours(run)
    speeds = [line["frames_per_second"] for line in run.split("train") if "frames_per_second" in line]
    facts = {
        "parameters": f"{total(*create(replace(settings, device='cpu'))):,}",
        "steps": f"{last:,}, best.pt at {best['step']:,}" if best else f"{last:,}",
        "speed": f"{statistics.median(speeds):,.0f} frames/s in training" if speeds else "",
        "time": "" if hours is None else f"about {_duration(hours)} in training steps",
        "seed": str(settings.seed),
    }
    return {
        "name": run.name,
        "colour": colour,
        "model": settings.model.name,
        "guide": settings.guide.name,
        "formulas": [
            formula(factorisation("p", declared.model, outside)),
            formula(factorisation("q", declared.guide, outside, "x_{1:T}")),
        ],
        "graph": graph(declared.model),
        "verdicts": _verdicts(run),
        "facts": {name: value for name, value in facts.items() if value},
    }


def _verdicts(run: RunFolder) -> list[Markup]:
    lines = []
    for latent, verdict in compare(run.settings.model, run.settings.guide.name).items():
        parts = [
            f"{word} {', '.join(ranges(nodes))}"
            for word, nodes in (("without", verdict.missing), ("also", verdict.extra))
            if nodes
        ]
        detail = f" ({'; '.join(parts)})" if parts else ""
        lines.append(
            f"the guide conditions {latent} on the same variables as the exact posterior"
            if verdict.word == "same"
            else f"the guide conditions {latent} on {verdict.word} variables than the exact posterior{detail}"
        )
    return [formula(line) for line in lines]


def training_hours(run: RunFolder) -> float | None:
    """Hours of all training steps, from their number, frames and speed; None where the frames of a step are unknown."""
    frames, batch = run.settings.data.sequence_frames, run.settings.train.batch_size
    if frames is None:
        return None
    seconds, before = 0.0, 0
    for line in run.split("train"):
        if line.get("frames_per_second"):
            seconds += (line["step"] - before) * batch * frames / line["frames_per_second"]
        before = line["step"]
    return seconds / 3600.0 if seconds else None


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1.0 else f"{max(1, round(60 * hours))} minutes"


def differing_settings(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Settings, by dotted key, that are not the same in all runs, with their values."""
    flat = [_flat(OmegaConf.to_container(OmegaConf.structured(run.settings))) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = []
    for key in keys:
        values = [settings.get(key, "\u2013") for settings in flat]
        if len(set(values)) > 1 and key not in NOT_SHOWN:
            rows.append((key, values))
    return rows


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: "null" if tree is None else str(tree)}
