"""Features on the disk: computed once, and mapped into memory by every run that wants them.

Of one split of a corpus under one front end, ``NAME.npy`` holds the frames of all utterances one after another, float32
(frames, D), and ``NAME.json`` what became of each utterance, with checksums. The name ends in a digest of all that the
features depend on: the utterances and the files they are read from (path, size, time of change), the front end with its
settings, and the code of this package. So nothing in it is ever out of date; what no longer fits is not found.

Both are written under other names and renamed when they are whole, the JSON last: without it there is nothing. Two runs
that want the same features at once each write them, and the later replaces the earlier, whose readers keep theirs.
Files that are cut, changed or something else are known by the checksums, and written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import pickle
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.frontends.base import FrontEnd
from corpora.types import AudioFault, Frames, Utterance
from dvae_pyro.files import disk_errors

__all__ = ["Reading", "digest", "kept", "read"]

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
    code = [path.read_bytes() for path in sorted(Path(str(files("corpora"))).rglob("*.py"))]
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
        name: what the files' names begin with.
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
    path = folder / f"{name}-{key}.npy"
    if path.exists() and path.with_suffix(".json").exists():
        try:
            found = _open(path, frontend.dim)
        except (OSError, EOFError, ValueError, TypeError, KeyError) as damage:
            report(f"{path} is damaged ({str(damage).splitlines()[0]}): it is computed anew")
        else:
            report(f"{name}: features taken from {path}")
            return found
    _write(path, frontend.dim, computed)
    report(f"{name}: features kept in {path}")
    return _open(path, frontend.dim)


def _write(path: Path, dim: int, readings: Iterable[Reading]) -> None:
    entries: list[list[object]] = []
    frames = checksum = 0
    with disk_errors(path, "Free space, name another folder with data.cache, or leave it out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(path)
        with _renamed_when_whole(path) as stream:
            stream.write(_header(0, dim))
            for features, *rest in readings:
                content = np.ascontiguousarray(features, dtype="<f4").data
                stream.write(content)
                checksum = zlib.crc32(content, checksum)
                entries.append([len(features), *rest])
                frames += len(features)
            stream.seek(0)
            stream.write(_header(frames, dim))
        with _renamed_when_whole(path.with_suffix(".json")) as stream:
            index = {"utterances": entries, "checksum": checksum, "checksum of utterances": _checksum(entries)}
            stream.write(json.dumps(index).encode())


@contextlib.contextmanager
def _renamed_when_whole(path: Path) -> Iterator[BinaryIO]:
    """A file under a name of its own, which takes the place of `path` at the end."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    try:
        with open(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)


def _header(frames: int, dim: int) -> bytes:
    """The header of an ``.npy`` file, which is as long for any number of frames."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (frames, dim)})
    return stream.getvalue()


def _checksum(entries: Sequence[Sequence[object]]) -> int:
    return zlib.crc32(json.dumps(entries).encode())


def _clear_up(path: Path) -> None:
    """Remove what killed runs left half-written a day ago or earlier."""
    for left in path.parent.glob(f"{path.stem}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()


def _open(path: Path, dim: int) -> list[Reading]:
    """What `_write` wrote; an error of some kind where it is not that."""
    index = json.loads(path.with_suffix(".json").read_bytes())
    # Copy on write: a page that somebody writes to becomes his own, and the file stays as it is.
    whole = np.load(path, mmap_mode="c")
    ends = list(itertools.accumulate((frames for frames, *_ in index["utterances"]), initial=0))
    if (whole.dtype, whole.shape) != (np.dtype("<f4"), (ends[-1], dim)):
        raise ValueError("frames and index do not agree")
    if (index["checksum of utterances"], index["checksum"]) != (_checksum(index["utterances"]), zlib.crc32(whole.data)):
        raise ValueError("a checksum does not agree")
    return [
        Reading(np.asarray(whole[start:end]), *rest)
        for (start, end), (_, *rest) in zip(itertools.pairwise(ends), index["utterances"], strict=True)
    ]
