"""Line charts and strips of dots as SVG in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

__all__ = ["Band", "Mark", "Series", "bars", "line_chart", "number", "strip"]

WIDTH, HEIGHT = 640, 250
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 10, 40
MOST_POINTS = 400


class Series(NamedTuple):
    """A line: the number of its colour, its points, and whether it is drawn faintly."""

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


class Band(NamedTuple):
    """A stretch of the x axis that is shaded."""

    start: float
    end: float
    text: str


class Mark(NamedTuple):
    """A point that is marked, with the text of its tooltip."""

    colour: int
    x: float
    y: float
    text: str


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
) -> Markup:
    """A chart of lines.

    The range of the y axis leaves out the first twentieth of the x axis, in which losses fall from far away.

    Args:
        title: what it shows, for screen readers.
        series: the lines.
        x_label: label of the x axis.
        y_label: label of the y axis, with the unit.
        bands: stretches that are shaded.
        marks: points that are marked.
    """
    xs = [x for s in series for x in s.x]
    if not xs:
        return Markup("")
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    late = x_low + 0.05 * (x_high - x_low)
    ys = [y for s in series for x, y in zip(s.x, s.y, strict=True) if x >= late and math.isfinite(y)] or [0.0, 1.0]
    margin = 0.06 * (max(ys) - min(ys)) or max(abs(max(ys)) * 0.1, 1e-6)
    y_low, y_high = min(ys) - margin, max(ys) + margin

    def px(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    bottom, clip = HEIGHT - BOTTOM, f"clip{abs(hash((title, y_label, len(xs)))) % 10**8}"
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<clipPath id="{clip}"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{bottom - TOP}"/>'
        "</clipPath>",
    ]
    for band in bands:
        start, end = px(max(band.start, x_low)), px(min(band.end, x_high))
        parts.append(
            f'<rect class="band" x="{start:.1f}" y="{TOP}" width="{max(end - start, 0.0):.1f}" height="{bottom - TOP}">'
            f"<title>{escape(band.text)}</title></rect>"
        )
    for y in _ticks(y_low, y_high, 5):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{number(y)}</text>'
        )
    for x in _ticks(x_low, x_high, 7):
        parts.append(f'<text class="tick" x="{px(x):.1f}" y="{bottom + 15}" text-anchor="middle">{number(x)}</text>')
    parts.append(f'<g clip-path="url(#{clip})">')
    for s in sorted(series, key=lambda s: not s.faint):
        points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in _thinned(s) if math.isfinite(y))
        kind = "line faint" if s.faint else "line"
        parts.append(
            f'<polyline class="{kind} c{s.colour}" points="{points}"><title>{escape(s.name)}</title></polyline>'
        )
    for mark in marks:
        parts.append(
            f'<circle class="mark c{mark.colour}" cx="{px(mark.x):.1f}" cy="{py(mark.y):.1f}" r="4.5">'
            f"<title>{escape(mark.text)}</title></circle>"
        )
    middle = (TOP + bottom) / 2
    parts += [
        "</g>",
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text class="label" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(y_label)}</text></svg>",
    ]
    return Markup("".join(parts))


def bars(
    title: str, values: Sequence[float], labels: Sequence[str], colour: int, *, x_label: str, y_label: str
) -> Markup:
    """A chart of bars from zero, one for each value; each bar's tooltip is its label.

    Args:
        title: what it shows, for screen readers.
        values: heights, none negative.
        labels: text of each tooltip.
        colour: number of the colour.
        x_label: label of the x axis; its ticks count the bars from 1.
        y_label: label of the y axis, with the unit.
    """
    height, bottom = 190, 150
    top = max(*values, 1e-9)
    step = (WIDTH - LEFT - RIGHT) / len(values)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for y in _ticks(0.0, top, 4):
        at = bottom - y / top * (bottom - TOP)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number(y)}</text>'
        )
    every = -(-len(values) // 32)
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        tall = value / top * (bottom - TOP)
        x = LEFT + i * step
        parts.append(
            f'<rect class="bar c{colour}" x="{x + 0.1 * step:.1f}" y="{bottom - tall:.1f}" width="{0.8 * step:.1f}" '
            f'height="{tall:.1f}"><title>{escape(label)}</title></rect>'
        )
        if i % every == 0:
            parts.append(
                f'<text class="tick" x="{x + step / 2:.1f}" y="{bottom + 14}" text-anchor="middle">{i + 1}</text>'
            )
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 5}" text-anchor="middle">{escape(x_label)}'
        f'</text><text class="label" x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(y_label)}</text></svg>"
    )
    return Markup("".join(parts))


class Dot(NamedTuple):
    """A value of one utterance: its number on the page, and the text of its tooltip."""

    value: float
    utterance: int
    text: str


def strip(
    title: str, dots: Sequence[Dot], mean: float, stderr: float | None, span: tuple[float, float], colour: int
) -> Markup:
    """Values of utterances on a line, with their mean and its standard error.

    Args:
        title: what it shows, for screen readers.
        dots: the values, in increasing order.
        mean: the mean.
        stderr: its standard error.
        span: the values at the left and the right end.
        colour: number of the colour.
    """
    width, height = 108, 26
    low, high = span

    def px(value: float) -> float:
        return 5.0 + (min(max(value, low), high) - low) / ((high - low) or 1.0) * (width - 10.0)

    parts = [
        f'<svg class="strip c{colour}" viewBox="0 0 {width} {height}" tabindex="0" role="group" '
        f'aria-label="{escape(title)}">'
    ]
    if stderr is not None:
        start, end = px(mean - stderr), px(mean + stderr)
        parts.append(f'<rect class="error" x="{start:.1f}" y="2" width="{max(end - start, 1.0):.1f}" height="22"/>')
    parts.append(f'<line class="mean" x1="{px(mean):.1f}" x2="{px(mean):.1f}" y1="2" y2="24"/>')
    for dot in dots:
        y = 13.0 + 7.0 * math.sin(2.4 * dot.utterance)  # apart, and the same in every column
        parts.append(
            f'<circle class="dot" data-utterance="{dot.utterance}" cx="{px(dot.value):.1f}" cy="{y:.1f}" r="2.6">'
            f"<title>{escape(dot.text)}</title></circle>"
        )
    return Markup("".join([*parts, "</svg>"]))


def number(value: float) -> str:
    """A number of an axis.

    Example:
        >>> number(1500.0), number(0.25), number(-3.0), number(0.0), number(2e-5)
        ('1500', '0.25', '\u22123', '0', '2e-05')
    """
    return f"{value:.6g}".replace("-", "\u2212", 1) if value < 0 else f"{value:.6g}"


def _ticks(low: float, high: float, count: int) -> list[float]:
    ticks = [float(round(tick, 12)) for tick in MaxNLocator(count).tick_values(low, high)]
    return [tick for tick in ticks if low <= tick <= high]


def _thinned(s: Series) -> list[tuple[float, float]]:
    """The points, or means of neighbours where there are many."""
    points = np.column_stack([np.asarray(s.x, float), np.asarray(s.y, float)])
    if len(points) > MOST_POINTS:
        points = np.stack([part.mean(0) for part in np.array_split(points, MOST_POINTS)])
    return [(float(x), float(y)) for x, y in points]
