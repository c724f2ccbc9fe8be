"""One utterance beside every run's resynthesis of it: the panels of ``evaluation.compare --utterance``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from corpora.registry import open_corpus
from corpora.types import Utterance
from dvae_pyro.errors import UserError, nearest
from evaluation.reporting.command_line import Request, open_run
from evaluation.reporting.plots import Panel, spectrogram_panels
from evaluation.resynthesis.decoding import resynthesise
from inference.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evaluation.compare.table import Entry

__all__ = ["find_utterance", "utterance_picture"]


def utterance_picture(found: Sequence[Entry], wanted: str, device: str = "cpu") -> tuple[Figure, str]:
    """Spectrograms of one utterance and of every run's resynthesis of it, as each run was evaluated.

    Args:
        found: the runs.
        wanted: the utterance's file name in the corpus, or enough of its end to be unique.
        device: where to compute.

    Returns:
        The figure, and the name of the utterance.
    """
    panels: list[Panel] = []
    name = wanted
    for entry in found:
        run, request = _reopen(entry, device)
        split = open_corpus(run.settings.data, run.settings.data.seed, needed=[request.split]).splits[request.split]
        place = f"split '{request.split}' of {run.path}'s corpus"
        utterance = find_utterance(split, wanted, "--utterance", place)
        made = next(iter(resynthesise(run, [utterance], mode=request.mode, latents=request.latents)))
        if not panels:
            name = utterance.file
            panels.append(Panel("reference", made.reference, made.rate))
        panels.append(Panel(entry.name, made.estimate, made.rate))
    columns = next(c for c in (1, 2, 3, 4) if c * c >= len(panels) or c == 4)
    return spectrogram_panels(panels, columns, heading=name), name


def _reopen(entry: Entry, device: str) -> tuple[Run, Request]:
    """A run as it was when it was evaluated."""
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


def find_utterance(utterances: Sequence[Utterance], wanted: str, option: str, place: str) -> Utterance:
    """The utterance of this name.

    Args:
        utterances: where it is.
        wanted: its file name in the corpus, or enough of its end to be unique.
        option: what asks for it, for messages.
        place: where it was looked for, for messages.

    Raises:
        UserError: there is none of that name, or more than one.
    """
    exact = [u for u in utterances if u.file == wanted]
    named = exact or [u for u in utterances if PurePosixPath(u.file).stem == wanted or u.file.endswith(wanted)]
    if len(named) == 1:
        return named[0]
    if named:
        raise UserError(f"{option} {wanted} could be {', '.join(u.file for u in named[:5])}. Give more of the name.")
    hint = nearest(wanted, [u.file for u in utterances]) or f" The first is '{utterances[0].file}'."
    raise UserError(f"{option} {wanted}: no such file in {place}.{hint}")
