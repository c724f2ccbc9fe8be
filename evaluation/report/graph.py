"""The graphical model as SVG, unrolled over three frames, from the declared parents."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from models.structure.parents import Node, Parents, frames_of

__all__ = ["graph"]

FRAMES = 3
SUBSCRIPTS = ("t\u22121", "t", "t+1")
COLUMN, ROW, RADIUS = 110, 74, 20
TOP, BOTTOM = 12, 6
OBSERVED = "x"


def graph(parents: Parents) -> Markup:
    """The graph: x at the bottom, latents of frames above it, latents of the sequence on top.

    Args:
        parents: the declared parents of each site of a model.
    """
    outside = [name for name in parents if any(name in listed for listed in parents.values())]
    inside = [name for name in parents if name not in outside]
    rows = [*(name for name in inside if name == OBSERVED), *(name for name in inside if name != OBSERVED)]
    places: dict[Node, tuple[float, float]] = {}
    height = TOP + 2 * RADIUS + ROW * (len(rows) - 1 + bool(outside)) + BOTTOM
    for level, name in enumerate(rows):
        for t in range(FRAMES):
            places[name, t] = (60 + COLUMN * t, height - BOTTOM - RADIUS - ROW * level)
    for i, name in enumerate(outside):
        places[name, -1] = (60 + COLUMN * (FRAMES - 1) * (i + 1) / (len(outside) + 1), TOP + RADIUS)
    width = 120 + COLUMN * (FRAMES - 1)
    parts = [
        f'<svg class="graph" viewBox="0 0 {width} {height}" role="img" aria-label="graphical model">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0.5 8 4 0 7.5z"/></marker></defs>'
    ]
    for name, t in places:
        seen = {node for parent in parents[name] for node in frames_of(parent, t, FRAMES)}
        for node in sorted(seen, key=str):
            if node in places:
                parts.append(_arrow(places[node], places[name, t]))
    for (name, t), (x, y) in places.items():
        kind = "node seen" if name == OBSERVED else "node"
        below = f'<tspan dy="4" font-size="9">{SUBSCRIPTS[t]}</tspan>' if t >= 0 else ""
        parts.append(
            f'<circle class="{kind}" cx="{x:.0f}" cy="{y:.0f}" r="{RADIUS}"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(name)}{below}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """An arrow between two circles; one that would cross a third of the same row is curved."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    bend = 0.0
    if abs(y1 - y0) < 1 and abs(x1 - x0) > COLUMN + 1:
        bend = -0.24 * abs(x1 - x0)
    elif abs(x1 - x0) < 1 and abs(y1 - y0) > ROW + 1:
        bend = 0.25 * abs(y1 - y0)
    cx, cy = (x0 + x1) / 2 + (bend if abs(x1 - x0) < 1 else 0.0), (y0 + y1) / 2 + (bend if abs(y1 - y0) < 1 else 0.0)

    def towards(x: float, y: float, tx: float, ty: float, by: float) -> tuple[float, float]:
        d = math.hypot(tx - x, ty - y) or 1.0
        return x + by * (tx - x) / d, y + by * (ty - y) / d

    if not bend:
        cx, cy = x0 + ux * length / 2, y0 + uy * length / 2
    sx, sy = towards(x0, y0, cx, cy, RADIUS)
    ex, ey = towards(x1, y1, cx, cy, RADIUS + 1)
    return f'<path class="edge" marker-end="url(#arrow)" d="M{sx:.1f} {sy:.1f}Q{cx:.1f} {cy:.1f} {ex:.1f} {ey:.1f}"/>'
