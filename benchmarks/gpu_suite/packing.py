"""An archive of runs, logs and reports, split into files of limited size."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["pack"]

PIECE = 15 * 2**20
"""Bytes per file."""
PIECES = 5
SMALL = ("*.jsonl", "*.yaml", "*.json", "*.csv", "*.txt")


def pack(scratch: Path, out: Path, *, piece: int = PIECE, pieces: int = PIECES) -> list[str]:
    """Write `runs.tar.gz.0`, ... from a scratch folder: metrics and logs, then the weights of each run.

    Weights are `best.pt`, or `last.pt` if it does not exist. ``cat runs.tar.gz.* | tar xz`` unpacks the archive.

    Returns:
        Files that were omitted because of the size limit.
    """
    files = [file for pattern in SMALL for file in sorted(scratch.rglob(pattern)) if "features" not in file.parts]
    weights = {file.parent: file for name in ("last.pt", "best.pt") for file in scratch.rglob(name)}
    files += sorted(weights.values(), key=lambda file: (file.stat().st_size, file))
    room, left_out = piece * pieces - 2**16 * min(1, piece // 2**17), list[str]()
    archive = scratch / "runs.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for file in files:
            size = file.stat().st_size + 1024  # weights hardly become smaller
            if size > room:
                left_out.append(str(file.relative_to(scratch)))
                continue
            room -= size
            tar.add(file, str(file.relative_to(scratch)))
    _cut(archive, out, piece)
    return left_out


def _cut(archive: Path, out: Path, piece: int) -> Sequence[Path]:
    written: list[Path] = []
    with archive.open("rb") as stream:
        while content := stream.read(piece):
            path = out / f"{archive.name}.{len(written)}"
            path.write_bytes(content)
            written.append(path)
    return written
