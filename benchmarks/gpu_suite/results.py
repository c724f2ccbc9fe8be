"""Results as lines of JSON, one file per part, written as soon as they are measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["Line", "append", "read"]

Line = dict[str, Any]


def append(path: Path, line: Line) -> None:
    """Append a line in a single write; NaN and infinite numbers become strings."""
    with open(path, "ab", buffering=0) as stream:
        stream.write(json.dumps(_plain(line)).encode() + b"\n")


def read(path: Path) -> list[Line]:
    """The complete lines of a file; an empty list if it does not exist."""
    lines = []
    for text in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut when its process died
            continue
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
