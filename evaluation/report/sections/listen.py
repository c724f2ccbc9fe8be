"""Section 3: utterances to listen to, with spectrograms of the reference and of each run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.report.collect import rows_of
from evaluation.report.media import flac, spectrogram_png
from evaluation.report.page import Page
from evaluation.reporting.plots import RANGE_DB, spectrogram_db
from evaluation.resynthesis.decoding import Resynthesis
from evaluation.resynthesis.metrics import METRICS

__all__ = ["further_sounds", "section"]

CAPTION = ("si_sdr", "pesq_wb", "estoi")


def section(page: Page) -> dict[str, Any]:
    """A player for each chosen utterance that the limit of size has room for."""
    players, sounds = [], []
    for number, chosen in enumerate(page.chosen):
        items = _items(page, chosen.file)
        if not items:
            continue
        reference = next(iter(items.values())).reference
        rate = next(iter(items.values())).rate
        coded = _coded(items)
        spectra = [spectrogram_db(reference, rate), *(spectrogram_db(i.estimate, i.rate) for i in items.values())]
        pictures = [spectrogram_png(decibels, float(spectra[0].max())) for decibels in spectra]
        if not page.budget.take(sum(map(len, coded.values())) + sum(map(len, pictures))):
            continue
        sounds += [{"id": f"s{number}-{place}", "data": data} for place, data in coded.items()]
        panels = [{"place": 0, "name": "reference", "colour": None, "picture": pictures[0], "caption": "the recording"}]
        for (place, _), picture in zip(items.items(), pictures[1:], strict=True):
            source = page.sources[place - 1]
            caption = _caption(source.entry.file, chosen.file) if source.entry else ""
            panels.append(
                {"place": place, "name": source.name, "colour": source.colour, "picture": picture, "caption": caption}
            )
        first = next(iter(items.values()))
        players.append(
            {
                "number": number,
                "file": chosen.file,
                "why": chosen.why,
                "speaker": first.speaker,
                "seconds": len(reference) / rate,
                "khz": rate / 2000.0,
                "panels": panels,
            }
        )
    return {
        "players": players,
        "sounds": sounds,
        "range_db": RANGE_DB,
        "left_out": len(page.chosen) - len(players),
        "commands": page.commands("resynthesis"),
        "of_sound": any(run.of_sound for run in page.runs),
    }


def further_sounds(page: Page) -> tuple[list[dict[str, str]], set[int]]:
    """Sounds of the other utterances, as many as fit; and the numbers of these utterances."""
    sounds: list[dict[str, str]] = []
    numbers: set[int] = set()
    for number, file in enumerate(page.files[len(page.chosen) :], len(page.chosen)):
        items = _items(page, file)
        coded = _coded(items) if items else {}
        if items and page.budget.take(sum(map(len, coded.values()))):
            sounds += [{"id": f"s{number}-{place}", "data": data} for place, data in coded.items()]
            numbers.add(number)
    return sounds, numbers


def _items(page: Page, file: str) -> dict[int, Resynthesis]:
    """The resyntheses of an utterance, by the place of the source, from 1."""
    found = {}
    for place, source in enumerate(page.sources, 1):
        item = page.decoded[source.name].sounds.get(file) if source.name in page.decoded else None
        if item is not None:
            found[place] = item
    return found


def _coded(items: dict[int, Resynthesis]) -> dict[int, str]:
    """The reference, as source 0, and all resyntheses on one scale, coded."""
    first = next(iter(items.values()))
    loudest = max(1.0, *(float(np.abs(_finite(item.estimate)).max(initial=0.0)) for item in items.values()))
    coded = {0: flac(first.reference / loudest, first.rate)}
    return coded | {place: flac(_finite(item.estimate) / loudest, item.rate) for place, item in items.items()}


def _finite(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _caption(report: Any, file: str) -> str:
    row = rows_of(report).get(file, {})
    parts = []
    for name in CAPTION:
        metric = METRICS[name]
        if row.get(name) not in (None, "", "nan"):
            value = float(row[name]) * metric.scale
            label, _, unit = metric.label.partition(" dB")
            parts.append(f"{label} {value:.{metric.decimals}f}{' dB' if ' dB' in metric.label else ''}{unit}")
    return ", ".join(parts).replace(" -", " \u2212")
