"""Reference pages written from the code: settings, commands, metrics, names.

``mkdocs build`` calls `pages` through `docs/generator/hook.py`; the tests call it too.
"""

from __future__ import annotations

from collections.abc import Callable

from docs.generator import commands, metrics, names, settings

__all__ = ["PAGES", "pages"]

PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings.page,
    "reference/commands.md": commands.page,
    "reference/metrics.md": metrics.page,
    "reference/names.md": names.page,
}
"""What writes each page, by its path under docs/."""


def pages() -> dict[str, str]:
    """The Markdown of each generated page, by its path under docs/."""
    return {path: write() for path, write in PAGES.items()}
