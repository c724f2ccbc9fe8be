"""Progress bars on standard error: updated often in a terminal, every half minute where the output is a file."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from tqdm import tqdm

__all__ = ["progress_bar"]

TERMINAL_S, FILE_S = 0.2, 30.0


def progress_bar(
    description: str | None, total: float, unit: str, *, shown: bool = True, **style: Any
) -> tqdm[NoReturn]:
    """A progress bar; a context manager whose ``update(n)`` advances it.

    Args:
        description: Printed before the bar.
        total: Units of the whole task.
        unit: Name of one unit.
        shown: Draw it.
        style: Further arguments of ``tqdm``.

    Example:
        >>> with progress_bar("reading", 2, "file", shown=False) as bar:
        ...     bar.update()
    """
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        file=sys.stderr,
        disable=not shown,
        mininterval=TERMINAL_S if sys.stderr.isatty() else FILE_S,
        dynamic_ncols=True,
        **style,
    )
