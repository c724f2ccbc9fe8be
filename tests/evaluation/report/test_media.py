"""Coding of sounds and pictures, charts and the drawn graph."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.image
import numpy as np
import soundfile

from evaluation.report.charts import Band, Mark, Series, line_chart
from evaluation.report.graph import graph
from evaluation.report.media import flac, magma, palette_png, spectrogram_png
from models.registry import model_class


def test_flac_keeps_sixteen_bits() -> None:
    samples = np.round(np.random.default_rng(0).uniform(-1, 1, 4000) * 32767) / 32768
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(flac(samples, 16000))))
    assert rate == 16000 and np.array_equal(decoded, samples)


def test_png_has_the_colours_of_its_levels() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    picture = matplotlib.image.imread(io.BytesIO(palette_png(levels, magma())))
    assert np.array_equal(np.round(255 * picture[..., :3]), magma()[levels])
    assert len({tuple(colour) for colour in magma()}) == 256, "levels are read back from colours"


def test_spectrogram_spans_its_range_and_low_frequencies_are_at_the_bottom() -> None:
    decibels = np.full((5, 4), -200.0)
    decibels[2, 0] = 6.0
    uri = spectrogram_png(decibels, 6.0)
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    colours = np.round(255 * picture[..., :3])
    assert picture.shape[:2] == (4, 5)
    assert np.array_equal(colours[3, 2], magma()[255]) and np.array_equal(colours[0, 0], magma()[0])


def test_long_spectrogram_keeps_its_power() -> None:
    decibels = np.zeros((1800, 2))
    decibels[1::2] = 10.0
    picture = spectrogram_png(decibels, 10.0 * np.log10(5.5))
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert pixels.shape[1] == 900
    assert np.array_equal(np.round(255 * pixels[0, :, :3]), np.tile(magma()[255], (900, 1)))


def test_chart_places_points_bands_and_marks() -> None:
    steps, values = [0.0, 50.0, 100.0], [0.0, 5.0, 10.0]
    chart = line_chart(
        "rise",
        [Series("a", 3, steps, values)],
        x_label="step",
        y_label="nats",
        bands=[Band(0.0, 50.0, "warm-up")],
        marks=[Mark(3, 100.0, 10.0, "best")],
    )
    points = [tuple(map(float, p.split(","))) for p in re.findall(r'points="([^"]*)"', chart)[0].split()]
    (x0, _), (x1, y1), (x2, y2) = points
    assert x1 - x0 == x2 - x1 and y2 < y1, "larger values are higher on the page"
    mark = re.search(r'<circle class="mark c3" cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert mark is not None and (float(mark[1]), float(mark[2])) == (x2, y2)
    band = re.search(r'<rect class="band" x="([\d.]+)" y="\d+" width="([\d.]+)"', chart)
    assert band is not None and float(band[1]) + float(band[2]) == x1
    assert line_chart("nothing", [], x_label="", y_label="") == ""


def test_graph_has_an_arrow_for_each_declared_parent() -> None:
    cls = model_class("srnn")
    parents = cls.parents(cls.Settings(name="srnn"))  # z_t: x_{1:t-1}, z_{t-1}; x_t: x_{1:t-1}, z_t
    drawing = graph(parents)
    assert drawing.count('class="node') == 6
    assert drawing.count('<path class="edge"') == (3 + 2) + (3 + 3)
