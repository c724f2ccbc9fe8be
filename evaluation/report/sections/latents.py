"""Section 6: KL of each dimension, active units, and latents over time under the spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.report.charts import Series, bars, line_chart
from evaluation.report.decoding import ACTIVE
from evaluation.report.media import spectrogram_png
from evaluation.report.page import Page, Source
from evaluation.reporting.plots import spectrogram_db

__all__ = ["section"]

LINES = 4
"""Dimensions that are drawn over time, those with the largest KL."""


def section(page: Page) -> dict[str, Any]:
    """A block for each latent of each run."""
    blocks: list[dict[str, Any]] = []
    seen: set[str] = set()
    for source in page.sources:
        decoded = page.decoded.get(source.name)
        if decoded is None or source.run.name in seen:
            continue
        seen.add(source.run.name)
        for name, latent in decoded.latents.items():
            size = latent.kl if latent.kl is not None else latent.variance
            order = np.argsort(-size)
            what = "KL, nats per frame" if latent.kl is not None else "variance of the posterior mean"
            labels = [f"dimension {d}: {size[d]:.3g}" for d in order]
            title = f"{what} of each dimension of {name} of {source.run.name}"
            blocks.append(
                {
                    "run": source.run.name,
                    "colour": source.colour,
                    "latent": name,
                    "dims": len(size),
                    "active": latent.active,
                    "total": None if latent.kl is None else float(latent.kl.sum()),
                    "chart": bars(
                        title,
                        [float(size[d]) for d in order],
                        labels,
                        source.colour,
                        x_label="dimensions in the order of "
                        + ("their KL" if latent.kl is not None else "their variance"),
                        y_label=what,
                    ),
                    "over_time": _over_time(page, source, name, [int(d) for d in order[:LINES]]),
                    "utterances": decoded.utterances,
                    "frames": decoded.frames,
                }
            )
    return {"blocks": blocks, "active": ACTIVE, "spectrogram": _spectrogram(page)}


def _shown(page: Page) -> str | None:
    """The utterance whose latents are drawn: that of median quality."""
    files = [c.file for c in page.chosen if c.why == "median"] or [c.file for c in page.chosen]
    return files[0] if files else None


def _over_time(page: Page, source: Source, latent: str, dims: list[int]) -> dict[str, Any] | None:
    decoded, file = page.decoded[source.name], _shown(page)
    values = None if file is None else decoded.trajectories.get(file, {}).get(latent)
    if file is None or values is None or file not in decoded.sounds:
        return None
    item = decoded.sounds[file]
    seconds = np.linspace(0.0, len(item.reference) / item.rate, len(values)).tolist()
    series = [Series(f"dimension {d}", i, seconds, values[:, d].tolist()) for i, d in enumerate(dims)]
    title = f"posterior means of {latent} of {source.run.name} over time"
    return {
        "chart": line_chart(title, series, x_label="time, s", y_label=f"mean of {latent}"),
        "dims": [{"dim": d, "colour": i} for i, d in enumerate(dims)],
    }


def _spectrogram(page: Page) -> dict[str, Any] | None:
    """The spectrogram above the latents."""
    file = _shown(page)
    for source in page.sources:
        decoded = page.decoded.get(source.name)
        if decoded is not None and file is not None and file in decoded.sounds:
            item = decoded.sounds[file]
            decibels = spectrogram_db(item.reference, item.rate)
            picture = spectrogram_png(decibels, float(decibels.max()))
            if page.budget.take(len(picture)):
                return {"file": file, "picture": picture, "khz": item.rate / 2000.0}
    return None
