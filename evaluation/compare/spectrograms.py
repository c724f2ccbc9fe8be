"""One utterance and its resynthesis by each run, as spectrograms: ``evaluation.compare --utterance``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from evaluation.compare.table import Entry
from evaluation.loading.splits import corpus_of, find_utterance
from evaluation.reporting.command_line import Request, open_run
from evaluation.reporting.plots import Panel, spectrogram_panels
from evaluation.resynthesis.decoding import resynthesise
from inference.runs import Run

__all__ = ["reopen", "utterance_picture"]


def utterance_picture(runs: Sequence[Entry], wanted: str, device: str = "auto") -> tuple[Figure, str]:
    """Spectrograms of one utterance and of its resyntheses, under the conditions in which each run was evaluated.

    Args:
        runs: the runs.
        wanted: the utterance's file name in the corpus, or a unique end of it.
        device: device to compute on.

    Returns:
        The figure, and the name of the utterance.

    Raises:
        UserError: no utterance has this name, or several have.
    """
    panels: list[Panel] = []
    name = wanted
    for entry in runs:
        run, request = reopen(entry, device)
        utterances = corpus_of(run.settings, request.split).splits[request.split]
        source = f"split '{request.split}' of {run.path}'s corpus"
        utterance = find_utterance(utterances, wanted, "--utterance", source)
        resynthesis = next(iter(resynthesise(run, [utterance], mode=request.mode, latents=request.latents)))
        if not panels:
            name = utterance.file
            panels.append(Panel("reference", resynthesis.reference, resynthesis.rate))
        panels.append(Panel(entry.name, resynthesis.estimate, resynthesis.rate))
    columns = next(c for c in (1, 2, 3, 4) if c * c >= len(panels) or c == 4)
    return spectrogram_panels(panels, columns, heading=name), name


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
