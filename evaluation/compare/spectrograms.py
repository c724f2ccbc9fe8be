"""One utterance and its resynthesis by each run, as spectrograms and sounds: ``evaluation.compare --utterance``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from matplotlib.figure import Figure

from evaluation.compare.table import Entry
from evaluation.loading.splits import corpus_of, find_utterance
from evaluation.reporting.audio import peak, write_sound
from evaluation.reporting.command_line import Request, open_run
from evaluation.reporting.plots import Panel, spectrogram_panels
from evaluation.reporting.report import mode_text
from evaluation.resynthesis.decoding import resynthesise
from inference.runs import Run

__all__ = ["Resyntheses", "reopen", "resyntheses"]


class Resyntheses(NamedTuple):
    """An utterance, and its resynthesis by each run.

    Attributes:
        file: name of the utterance in the corpus.
        panels: the reference, then the resynthesis by each run.
    """

    file: str
    panels: list[Panel]

    def picture(self) -> Figure:
        """Their spectrograms."""
        columns = next(c for c in (1, 2, 3, 4) if c * c >= len(self.panels) or c == 4)
        return spectrogram_panels(self.panels, columns, heading=f"{self.file} and its resyntheses")

    def write_sounds(self, folder: Path) -> list[Path]:
        """Write them as FLAC on a common scale; returns the files."""
        scale = peak(*(panel.samples for panel in self.panels))
        stem = PurePosixPath(self.file).stem
        files = [folder / f"{stem}-{re.sub('[^a-zA-Z0-9.]+', '-', panel.title)}.flac" for panel in self.panels]
        for file, panel in zip(files, self.panels, strict=True):
            write_sound(file, panel.samples / scale, panel.rate)
        return files


def resyntheses(runs: Sequence[Entry], wanted: str, device: str = "auto") -> Resyntheses:
    """An utterance and its resynthesis by each run, under the conditions in which the run was evaluated.

    Args:
        runs: the runs.
        wanted: the utterance's file name in the corpus, or a unique end of it.
        device: device to compute on.

    Raises:
        UserError: no utterance has this name, or several have.
    """
    panels: list[Panel] = []
    name = wanted
    titles = [entry.run.name + mode_text(entry.report) for entry in runs]
    if len(set(titles)) < len(titles):
        titles = [entry.name + mode_text(entry.report) for entry in runs]
    for entry, title in zip(runs, titles, strict=True):
        run, request = reopen(entry, device)
        utterances = corpus_of(run.settings, request.split).splits[request.split]
        source = f"split '{request.split}' of {run.path}'s corpus"
        utterance = find_utterance(utterances, wanted, "--utterance", source)
        resynthesis = next(iter(resynthesise(run, [utterance], mode=request.mode, latents=request.latents)))
        if not panels:
            name = utterance.file
            panels.append(Panel("reference", resynthesis.reference, resynthesis.rate))
        panels.append(Panel(title, resynthesis.estimate, resynthesis.rate))
    return Resyntheses(name, panels)


def reopen(entry: Entry, device: str) -> tuple[Run, Request]:
    """A run, with the settings that its report was computed with."""
    report = entry.report
    checkpoint = report.get("checkpoint")
    request = Request(
        run=entry.run,
        split=report["split"],
        mode=report["mode"],
        latents=report["latents"],
        checkpoint=None if checkpoint is None else Path(checkpoint),
        device=device,
        overrides=tuple(report.get("overrides", ())),
    )
    return open_run(request), request
