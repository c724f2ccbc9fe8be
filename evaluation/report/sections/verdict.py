"""Section 1: what was compared, warnings, and the best run of each metric with paired differences."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from evaluation.compare.table import COLUMNS, Entry, best_rows, differences, heading
from evaluation.disentanglement.pairs import sequence_latents
from evaluation.report.collect import RunFolder, rows_of
from evaluation.report.page import Page
from evaluation.reporting.report import Summary, summarise
from evaluation.resynthesis.metrics import METRICS
from inference.training.monitor.convergence import UNUSED, convergence, unused_latents
from models.registry import model_class

__all__ = ["paired", "section", "warnings"]


def section(page: Page) -> dict[str, Any]:
    """Heading, warnings and the table of differences."""
    entries = page.entries
    return {
        "heading": heading(entries) if entries else "",
        "warnings": warnings(page),
        "names": [source.name for source in page.sources if source.entry is not None],
        "given": [_given_the_past(entry) for entry in entries],
        "colours": [source.colour for source in page.sources if source.entry is not None],
        "rows": _rows(entries),
        "commands": page.commands("resynthesis"),
    }


def paired(entry: Entry, other: Entry, metric: str) -> Summary:
    """Mean over utterances of the difference entry - other, with its standard error, of utterances that both have."""
    ours, theirs = rows_of(entry.file), rows_of(other.file)
    common = [(ours[file].get(metric), theirs[file].get(metric)) for file in ours if file in theirs]
    return summarise(float(a or math.nan) - float(b or math.nan) for a, b in common)


def _rows(entries: list[Entry]) -> list[dict[str, Any]]:
    rows = []
    for name, best in zip(COLUMNS, best_rows(entries) if entries else [], strict=False):
        metric = METRICS[name]
        if best is None:
            continue
        cells = []
        for i, entry in enumerate(entries):
            difference = paired(entry, entries[best], name)
            clear = difference.stderr is not None and abs(difference.mean or 0.0) > 2.0 * difference.stderr
            text = difference.text(metric.decimals, metric.scale).replace("-", "\u2212")
            sign = "+" if (difference.mean or 0.0) > 0 else ""
            cells.append(
                {
                    "best": i == best,
                    "value": entry.figure(name).text(metric.decimals, metric.scale),
                    "difference": "no common utterances" if difference.mean is None else sign + text,
                    "clear": clear,
                }
            )
        rows.append({"label": metric.label, "better": metric.better, "definition": metric.definition, "cells": cells})
    return rows


def warnings(page: Page) -> list[str]:
    """What a reader must know before comparing the figures."""
    lines = [*differences(page.entries)] if page.entries else []
    lines += _seeds(page.runs)
    gt = [entry.name for entry in page.entries if _given_the_past(entry)]
    if gt:
        lines.append(
            f"{_and(gt)}: autoregressive, evaluated with --mode gt. The decoder is given the true past frames, so "
            "these figures say nothing of generation and cannot be compared with those of other models."
        )
    for run in page.runs:
        lines += [f"{run.name}: {line}" for line in (*_unfinished(run), *_unused(page, run))]
    for entry in page.entries:
        checkpoint = entry.run / str(entry.report.get("checkpoint"))
        if checkpoint.is_file() and checkpoint.stat().st_mtime > entry.file.stat().st_mtime:
            lines.append(f"{entry.name}: {checkpoint.name} is newer than {entry.file.name}. Evaluate the run again.")
    for source in page.sources:
        problem = page.decoded[source.name].problem if source.name in page.decoded else ""
        if problem:
            lines.append(f"{source.name}: no sounds and no latents. {problem}")
    return [*lines, *page.failed]


def _given_the_past(entry: Entry) -> bool:
    """Whether the decoder of an autoregressive model was given the true past frames."""
    return bool(entry.report.get("autoregressive")) and entry.report["mode"] == "gt"


def _seeds(runs: Any) -> list[str]:
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for run in runs:
        seeds[run.settings.model.name, run.settings.guide.name].add(run.settings.seed)
    single = [
        model if guide == "paper" else f"{model} with guide {guide}"
        for (model, guide), s in seeds.items()
        if len(s) < 2
    ]
    if not single:
        return []
    return [
        f"One seed of {_and(single)}. The standard errors are over utterances and do not contain the variation "
        "between trainings."
    ]


def _unfinished(run: RunFolder) -> list[str]:
    valid = [line for line in run.split("valid") if run.criterion in line]
    if run.best is None:
        return ["no validation in metrics.jsonl"]
    found = convergence([float(line[run.criterion]) for line in valid])
    if found is None or not found.rising:
        return []
    return [
        f"undertrained: the validation bound rose by {found.late:.3g} nats per frame in the last quarter of training, "
        f"of {found.rise:.3g} in all, and is best at step {run.best['step']} of {valid[-1]['step']}."
    ]


def _unused(page: Page, run: RunFolder) -> list[str]:
    """Latents that are hardly used, by the KL of the best validation; nothing is known where no latent was inferred."""
    latents = next((page.decoded[s.name].latents for s in page.sources if s.run is run and s.name in page.decoded), {})
    whole = sequence_latents(model_class(run.settings.model.name), run.settings.model)
    frames = run.settings.data.sequence_frames
    dimensions = {
        name: len(latent.variance) * (1.0 / frames if name in whole and frames else latent.per_frame)
        for name, latent in latents.items()
    }
    return [
        f"latent {name} is hardly used: KL {share:.2g} nats per dimension, below {UNUSED} (posterior collapse)."
        for name, share in unused_latents(run.best or {}, dimensions).items()
    ]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
