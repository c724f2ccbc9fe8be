"""The picture of an enhancement: spectrograms of noisy, estimated and clean speech, the gain, and the noise WH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.reporting.plots import RANGE_DB, colour_bar, new_figure, save_picture, spectrogram_db

__all__ = ["Drawn", "enhancement_picture", "save_enhancement"]

Samples = NDArray[np.float64]


class Drawn(NamedTuple):
    """A recording in the picture, at most its first half minute.

    Attributes:
        name: the recording's name.
        noisy: noisy samples.
        estimate: estimated clean samples.
        clean: clean samples; None if there are none.
        rate: sampling rate in Hz.
        gain: the Wiener gain (T, F) of the first block; complex for reverberation.
        w: W, spectra of the noise (F, K).
        h: H, their activations (K, T).
    """

    name: str
    noisy: Samples
    estimate: Samples
    clean: Samples | None
    rate: int
    gain: NDArray[np.float64] | NDArray[np.complex128]
    w: NDArray[np.float64]
    h: NDArray[np.float64]


def enhancement_picture(drawn: Sequence[Drawn], kilohertz: float, seconds_per_frame: float, heading: str = "") -> Any:
    """A row for each recording: noisy, estimate, clean, gain, and the variance WH of the noise."""
    with_clean = any(d.clean is not None for d in drawn)
    titles = ["noisy", "estimate", *(["clean"] if with_clean else []), "Wiener gain", "noise WH"]
    figure = new_figure(0.9 + 2.7 * len(titles), 0.9 + 2.0 * len(drawn), heading, dpi=110)
    grid = figure.subplots(len(drawn), len(titles), squeeze=False)
    for row, d in zip(grid, drawn, strict=True):
        sounds = [d.noisy, d.estimate, *([d.clean] if with_clean else [])]
        peak = float(spectrogram_db(d.noisy, d.rate).max())
        for axes, samples, title in zip(row, sounds, titles, strict=False):
            if samples is None:
                axes.remove()
                continue
            extent = (0.0, len(samples) / d.rate, 0.0, d.rate / 2000.0)
            _image(axes, spectrogram_db(samples, d.rate) - peak, extent, -RANGE_DB, 0.0, "magma")
            axes.set_title(title, fontsize=8, loc="left")
        extent = (0.0, len(d.gain) * seconds_per_frame, 0.0, kilohertz)
        _image(row[-2], np.abs(d.gain), extent, 0.0, 1.0, "viridis")
        noise = 10.0 * np.log10(np.maximum((d.w @ d.h).T, 1e-12))
        _image(row[-1], noise - noise.max(), extent, -RANGE_DB, 0.0, "magma")
        for axes, title in zip(row[-2:], titles[-2:], strict=True):
            axes.set_title(title, fontsize=8, loc="left")
        row[0].set_ylabel(f"{Path(d.name).name[-24:]}\nfrequency, kHz", fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("time, s", fontsize=7)
    shown = [axes for axes in grid.flat if axes.images]
    decibels, gain = "dB, relative to the maximum of the noisy sound (WH: its own)", "Wiener gain"
    for image, label in ((grid[0, 0].images[0], decibels), (grid[0, -2].images[0], gain)):
        colour_bar(figure, image, shown, label, shrink=1.6 / len(drawn), size=7)
    return figure


def save_enhancement(drawn: Sequence[Drawn], path: Path, frontend: Any, heading: str = "") -> None:
    """Write the picture, if there is anything to draw."""
    if drawn:
        save_picture(enhancement_picture(drawn, frontend.rate / 2000.0, frontend.hop / frontend.rate, heading), path)


def _image(axes: Any, values: Samples, extent: tuple[float, ...], low: float, high: float, colours: str) -> None:
    axes.imshow(values.T, origin="lower", aspect="auto", cmap=colours, vmin=low, vmax=high, extent=extent)
    axes.tick_params(labelsize=6)
