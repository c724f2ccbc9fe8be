"""Badges of the README as SVG files of its own, from `pyproject.toml`: no picture is loaded from a host.

python -m docs.generator.badges
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["FOLDER", "badges", "main"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "images" / "badges"
CHARACTER, MARGIN, HEIGHT = 6.6, 6.0, 20
"""Width of a character of 11 px, space beside a text and height of a badge, px."""


def badges() -> dict[str, str]:
    """The SVG of each badge by its file name."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    head = "Programming Language :: Python :: "
    versions = [line.removeprefix(head) for line in project["classifiers"] if line.startswith(head)]
    return {
        "version.svg": _badge("version", project["version"], "#4d7c4a"),
        "python.svg": _badge("python", " | ".join(versions), "#3b6db3"),
        "licence.svg": _badge("licence", project["license"], "#6a737d"),
    }


def main() -> None:
    """Write the badges."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in badges().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _badge(label: str, value: str, colour: str) -> str:
    left, right = (CHARACTER * len(text) + 2 * MARGIN for text in (label, value))
    size = f'width="{left + right:.0f}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}: {escape(value)}">'
        f'<clipPath id="round"><rect {size} rx="3"/></clipPath><g clip-path="url(#round)">'
        f'<rect width="{left:.0f}" height="{HEIGHT}" fill="#1b1f24"/>'
        f'<rect x="{left:.0f}" width="{right:.0f}" height="{HEIGHT}" fill="{colour}"/></g>'
        '<g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2:.1f}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2:.1f}" y="14">{escape(value)}</text></g></svg>\n'
    )


if __name__ == "__main__":
    main()
