"""Sounds to listen to, and a picture of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dvae_pyro.files import write_atomically

if TYPE_CHECKING:
    from evaluation.resynthesis.decoding import Resynthesis

__all__ = ["write_audio", "write_wav"]

MOST_IN_PICTURE = 6


def write_wav(path: Path, samples: NDArray[np.float64], rate: int) -> None:
    """Write samples, full scale 1, as 16-bit WAV."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    write_atomically(path, stream)


def write_audio(folder: Path, made: Sequence[Resynthesis]) -> None:
    """Write reference and resynthesis of each utterance, and `spectrograms.png` of the first few.

    Both sounds of a pair have the same scale, lowered where the resynthesis would clip.
    """
    from evaluation.reporting.plots import Panel, save_picture, spectrogram_panels

    panels = []
    for item in made:
        name = f"{item.place:03d}-{Path(item.file).stem}"
        loudest = max(1.0, float(np.abs(item.estimate).max(initial=0.0)))
        for kind, samples in (("reference", item.reference), ("resynthesised", item.estimate)):
            write_wav(folder / f"{name}-{kind}.wav", samples / loudest, item.rate)
            panels.append(Panel(f"{Path(item.file).stem}, {kind}", samples, item.rate))
    shown = panels[: 2 * MOST_IN_PICTURE]
    save_picture(spectrogram_panels(shown, columns=2), folder / "spectrograms.png")
