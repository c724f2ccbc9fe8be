"""Spectrograms show what sounds hold, where it is."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.reporting.plots import CHANGE_DB, Difference, Panel, spectrogram_db, spectrogram_panels


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("pitch", [500.0, 3000.0])
def test_a_tone_is_a_line_at_its_pitch_while_it_lasts(rate: int, pitch: float) -> None:
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * pitch * time) * (time > 0.5)
    decibels = spectrogram_db(tone, rate)
    bins = decibels.shape[1]
    frames = np.arange(len(decibels)) * 0.008
    hertz = np.arange(bins) * rate / 2 / (bins - 1)
    assert abs(hertz[decibels[-20].argmax()] - pitch) <= rate / 2 / (bins - 1)
    loud = frames[decibels.max(axis=1) > decibels.max() - 20]
    assert loud.min() == pytest.approx(0.5, abs=0.02) and loud.max() > 0.97


def test_panels_share_the_scale_of_the_first_and_leave_no_empty_axes() -> None:
    loud = np.random.RandomState(0).standard_normal(16000)
    figure = spectrogram_panels([Panel("a", loud, 16000), Panel("b", loud / 100, 16000), Panel("c", loud, 8000)], 2)
    *panels, _ = figure.axes
    assert len(panels) == 3
    tops = [float(np.max(axes.images[0].get_array())) for axes in panels]  # type: ignore[arg-type]  # an image always has an array
    assert tops[0] == pytest.approx(0.0) and tops[1] == pytest.approx(-40.0)
    assert list(panels[2].images[0].get_extent()) == [0.0, 2.0, 0.0, 4.0]


def test_difference_is_of_levels_that_are_seen_and_empty_places_stay_empty() -> None:
    loud = np.random.RandomState(0).standard_normal(16000)
    panels = [Panel("a", loud, 16000), None, Panel("b", loud / 10, 16000), Difference("b - a", loud / 10, loud, 16000)]
    first, second, change, *bars = spectrogram_panels(panels, 2, "run: a heading").axes
    assert [axes.get_title(loc="left") for axes in (first, second, change)] == ["a", "b", "b - a"]
    values = np.asarray(change.images[0].get_array())
    assert np.allclose(values, -20.0, atol=1e-6), "a tenth of the amplitude is 20 dB less"
    assert change.images[0].get_clim() == (-CHANGE_DB, CHANGE_DB)
    assert first.get_ylabel() == "frequency, kHz" and change.get_xlabel() == "time, s"
    assert "difference" in bars[1].get_ylabel()
