"""Sound files of resyntheses, and their spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.reporting.audio import peak, write_sound
from evaluation.reporting.plots import Panel, save_picture, spectrogram_panels
from evaluation.resynthesis.decoding import Resynthesis

__all__ = ["write_audio"]

PICTURED = 6
"""Utterances in the picture."""


def write_audio(folder: Path, resyntheses: Sequence[Resynthesis], heading: str = "") -> None:
    """Write reference and resynthesis of each utterance, and `spectrograms.png` of the first few.

    Both sounds of a pair have the same scale, which is reduced where the resynthesis would clip.
    """
    panels = []
    for item in resyntheses:
        stem = Path(item.file).stem
        for kind, samples in (("reference", item.reference), ("resynthesised", item.estimate)):
            write_sound(folder / f"{item.number:03d}-{stem}-{kind}.wav", samples / peak(item.estimate), item.rate)
            panels.append(Panel(f"{stem}, {kind}", samples, item.rate))
    picture = spectrogram_panels(panels[: 2 * PICTURED], columns=2, heading=heading)
    save_picture(picture, folder / "spectrograms.png")
