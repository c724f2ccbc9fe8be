"""Features on the disk: computed once, and mapped into memory by every run that wants them.

A file holds one split of a corpus under one front end: the frames of all utterances, float32, one after another; then
what became of each utterance, as JSON; then 20 bytes that say how long that is. Its name is a digest of all that the
features depend on: the utterances and the files they are read from (path, size, time of change), the front end with its
settings, and the code of this package. So nothing in it is ever out of date; what no longer fits is simply not found.

It is written under another name and renamed when it is whole. Two runs that want it at once each write one, and the
later replaces the earlier, whose readers keep theirs. A file that is cut, changed or something else is known by its
checksums, and written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.frontends.base import FrontEnd
from corpora.types import AudioFault, Frames, Utterance
from dvae_pyro.files import disk_errors

__all__ = ["Reading", "digest", "kept", "read"]

MAGIC = b"features"
TAIL = struct.Struct("<8sQI")
LIBRARIES = ("numpy", "scipy", "soundfile", "soxr", "torch")
ABANDONED_S = 24 * 3600.0


class Reading(NamedTuple):
    """What became of an utterance.

    Attributes:
        features: (T, D) float32; no frame where it cannot be used.
        fault: why it cannot be used, or nothing.
        rate: sampling rate of the recording, in Hz; 0 where there is no sound.
        channels: its channels; 0 where there is no sound.
        remark: what is odd about the file and does not keep it from being used.
    """

    features: NDArray[np.float32]
    fault: str = ""
    rate: int = 0
    channels: int = 0
    remark: str = ""


def read(utterance: Utterance, frontend: FrontEnd) -> Reading:
    """Read an utterance and compute its features."""
    try:
        recording = utterance.load()
        features = frontend.features(frontend.prepare(recording))
    except AudioFault as fault:
        return Reading(np.empty((0, frontend.dim), np.float32), fault.fault)
    if isinstance(recording, Frames):
        return Reading(features)
    return Reading(features, "", recording.rate, recording.samples.shape[1], recording.remark)


def digest(utterances: Sequence[Utterance], frontend: FrontEnd) -> str | None:
    """A name for the features of these utterances that changes with all they depend on; None if that is not known."""
    if not all(utterance.source for utterance in utterances):
        return None
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    found = hashlib.sha256(repr([zlib.crc32(text) for text in code]).encode())
    found.update(repr([version(name) for name in LIBRARIES]).encode())
    found.update(pickle.dumps(frontend, protocol=4))
    for utterance in utterances:
        parts = [_stamp(part) for part in utterance.source]
        found.update(repr((utterance.file, parts)).encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:32]


def _stamp(part: object) -> object:
    if not isinstance(part, Path):
        return part
    try:
        status = part.stat()
    except OSError as error:
        return str(part.absolute()), error.errno
    return str(part.absolute()), status.st_size, status.st_mtime_ns


def kept(
    folder: Path,
    name: str,
    utterances: Sequence[Utterance],
    frontend: FrontEnd,
    computed: Iterable[Reading],
    report: Callable[[str], None],
) -> Iterable[Reading]:
    """The readings of a split out of a folder, mapped into memory; what the folder does not have is put there first.

    Args:
        folder: where files of features are kept.
        name: what the file's name begins with.
        utterances: the split's.
        frontend: what the features are made by.
        computed: gives their readings, one after another, if they are needed. What it raises ends the writing and
            leaves nothing behind.
        report: is told where the features are, and of a damaged file.

    Raises:
        UserError: the file cannot be written.
    """
    key = digest(utterances, frontend)
    if key is None:
        report(f"{name}: not kept in {folder}, since the corpus does not say what its utterances are read from")
        return computed
    path = folder / f"{name}-{key}"
    if path.exists():
        try:
            found = _open(path, frontend.dim)
        except _Damaged as damage:
            report(f"{path} {damage}: it is computed anew")
        else:
            report(f"{name}: features taken from {path}")
            return found
    _write(path, computed)
    report(f"{name}: features kept in {path}")
    return _open(path, frontend.dim)


class _Damaged(Exception):
    pass


def _write(path: Path, readings: Iterable[Reading]) -> None:
    with disk_errors(path, "Free space, name another folder with data.cache, or leave it out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(path)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
        try:
            with open(handle, "wb") as stream:
                told = []
                for features, *rest in readings:
                    content = np.ascontiguousarray(features, dtype="<f4").data
                    stream.write(content)
                    told.append((len(features), zlib.crc32(content), *rest))
                index = json.dumps(told).encode()
                stream.write(index + TAIL.pack(MAGIC, len(index), zlib.crc32(index)))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside)


def _clear_up(path: Path) -> None:
    """Remove what killed runs left half-written a day ago or earlier."""
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()


def _open(path: Path, dim: int) -> list[Reading]:
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL.size))
            tail = stream.read(TAIL.size)
            magic, length, checksum = TAIL.unpack(tail) if len(tail) == TAIL.size else (b"", 0, 0)
            begin = size - TAIL.size - length
            if magic != MAGIC or begin < 0:
                raise _Damaged("is cut short, or no file of features")
            stream.seek(begin)
            index = stream.read(length)
    except OSError as error:
        raise _Damaged(f"cannot be read ({error.strerror})") from None
    if zlib.crc32(index) != checksum:
        raise _Damaged("is damaged")
    told = json.loads(index)
    if sum(frames for frames, *_ in told) * dim * 4 != begin:
        raise _Damaged("is of another size than it says")
    # Copy on write: a page that somebody writes to becomes his own, and the file stays as it is.
    whole = np.memmap(path, "<f4", "c", shape=(begin // (4 * dim), dim)) if begin else np.empty((0, dim), np.float32)
    found, start = [], 0
    for frames, expected, *rest in told:
        features = whole[start : start + frames]
        if zlib.crc32(features.data) != expected:
            raise _Damaged("is damaged")
        found.append(Reading(np.asarray(features), *rest))
        start += frames
    return found
