"""Section 5: training curves."""

from __future__ import annotations

from typing import Any

from evaluation.report.charts import Band, Mark, Series, line_chart
from evaluation.report.collect import RunFolder
from evaluation.report.page import Page

__all__ = ["section"]

LABELS = {"elbo": "bound (ELBO)", "iwae": "importance-weighted bound", "fivo": "filtering bound"}


def section(page: Page) -> dict[str, Any]:
    """A chart for the bound, the reconstruction, the KL of each latent and the learning rate."""
    latents = dict.fromkeys(
        key for run in page.runs for line in run.lines[-1:] for key in line if key.startswith("kl_")
    )
    keys = {
        **{key: LABELS[key] for key in dict.fromkeys(["elbo", *(run.criterion for run in page.runs)])},
        "reconstruction": "reconstruction term",
        **{key: f"KL of {key[3:]}" for key in latents},
    }
    bands = _warm_up(page.runs)
    charts = []
    for key, label in keys.items():
        chart = line_chart(
            f"{label} over training steps",
            _series(page, key),
            x_label="training step",
            y_label="nats per frame",
            bands=bands,
            marks=_marks(page, key),
        )
        if chart:
            charts.append({"title": label, "chart": chart})
    rates = [
        Series(run.name, page.colour(run), [line["step"] for line in lines], [line["lr"] for line in lines])
        for run in page.runs
        if (lines := [line for line in run.split("train") if "lr" in line])
    ]
    if rates:
        chart = line_chart("learning rate over training steps", rates, x_label="training step", y_label="learning rate")
        charts.append({"title": "learning rate", "chart": chart})
    return {
        "charts": charts,
        "warm_up": bands[0].text if bands else "",
        "runs": [{"name": run.name, "colour": page.colour(run)} for run in page.runs],
        "without": [run.name for run in page.runs if not run.lines],
    }


def _series(page: Page, key: str) -> list[Series]:
    found = []
    for run in page.runs:
        for split, faint in (("train", True), ("valid", False)):
            lines = [line for line in run.split(split) if isinstance(line.get(key), (int, float))]
            if lines:
                xs, ys = [line["step"] for line in lines], [line[key] for line in lines]
                found.append(Series(f"{run.name}, {split}", page.colour(run), xs, ys, faint))
    return found


def _marks(page: Page, key: str) -> list[Mark]:
    """best.pt of each run."""
    marks = []
    for run in page.runs:
        best = run.best
        if best is not None and key in best:
            text = f"{run.name}: best.pt, step {best['step']}, {best[key]:.4g} nats per frame"
            marks.append(Mark(page.colour(run), best["step"], best[key], text))
    return marks


def _warm_up(runs: Any) -> list[Band]:
    """The steps in which the weight of a KL rises, of the run in which it rises for longest."""
    ends = {run.name: _warm_up_end(run) for run in runs}
    longest = max(ends, key=lambda name: ends[name])
    if not ends[longest]:
        return []
    same = [name for name, end in ends.items() if end == ends[longest]]
    whose = "" if len(same) == len(ends) else f" of {', '.join(same)}"
    return [Band(0.0, ends[longest], f"KL warm-up{whose}: {ends[longest]} steps")]


def _warm_up_end(run: RunFolder) -> int:
    lines = run.split("train")
    final = max((line.get("beta", 1.0) for line in lines), default=1.0)
    rising = [line["step"] for line in lines if line.get("beta", 1.0) < final]
    return max(rising, default=0)
