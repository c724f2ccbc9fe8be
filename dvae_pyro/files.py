"""Atomic file writing: a temporary file in the same folder is flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from dvae_pyro.errors import UserError

__all__ = ["disk_errors", "write_atomically"]


@contextlib.contextmanager
def disk_errors(path: Path, remedy: str = "Free space or repair the disk") -> Iterator[None]:
    """Turn an error of the operating system (full disk, no permission) into a `UserError` with the path and reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot write {path}: {reason}. {remedy}, then run again.") from error


def write_atomically(path: Path, content: bytes | io.BytesIO) -> None:
    """Replace `path` by `content`; on failure the old file is unchanged and no temporary file remains.

    The buffer of a stream is not copied. Its view is released here even on failure: a view that stays alive in a
    traceback, in a cycle with its stream, makes CPython up to 3.12.3 crash when the cycle is collected.
    """
    if isinstance(content, io.BytesIO):
        with content.getbuffer() as view:
            _write(path, view)
    else:
        _write(path, content)


def _write(path: Path, content: bytes | memoryview) -> None:
    beside = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, path)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable across a power failure, where the system can sync folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
