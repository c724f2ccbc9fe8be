"""The cache of features: computed once, stored on disk, and memory-mapped by every run that uses them.

For one split of a corpus and one front end, ``NAME.npy`` holds the frames of all utterances concatenated, float32
(frames, D), and ``NAME.json`` an entry per utterance and a checksum of both. The name ends in a digest of everything
that the features depend on: the utterances and their files (path, size, modification time), the front end and its
settings, and the code of this package. An entry is therefore never stale: after a change it is not found.

Both files are written in a temporary folder and moved when complete, the JSON last; an entry without JSON does not
exist. If two runs compute the same features at once, both write them, and the later replaces the earlier; readers of
the earlier keep it. Truncated, modified or foreign files are detected by the checksum and written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pickle
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.frontends.base import FrontEnd
from corpora.types import AudioFault, Frames, Utterance
from dvae_pyro.files import disk_errors

__all__ = ["Reading", "digest", "cached_readings", "read"]

LIBRARIES = ("numpy", "scipy", "soundfile", "soxr", "torch")
ABANDONED_S = 24 * 3600.0


class Reading(NamedTuple):
    """The result of reading an utterance.

    Attributes:
        features: (T, D) float32; T = 0 if it cannot be used.
        fault: why it cannot be used; empty if it can.
        rate: sampling rate of the recording, in Hz; 0 without sound.
        channels: number of channels; 0 without sound.
        remark: an anomaly of the file that does not prevent its use.
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
    """A digest of everything that the features of these utterances depend on; None if an utterance has no `source`."""
    if not all(utterance.source for utterance in utterances):
        return None
    code = [path.read_bytes() for path in sorted(Path(str(files("corpora"))).rglob("*.py"))]
    hashed = hashlib.sha256(repr([zlib.crc32(text) for text in code]).encode())
    hashed.update(repr([version(name) for name in LIBRARIES]).encode())
    hashed.update(pickle.dumps(frontend, protocol=4))
    for utterance in utterances:
        parts = [_stamp(part) for part in utterance.source]
        hashed.update(repr((utterance.file, parts)).encode("utf-8", "surrogateescape"))
    return hashed.hexdigest()[:32]


def _stamp(part: object) -> object:
    if not isinstance(part, Path):
        return part
    try:
        status = part.stat()
    except OSError as error:
        return str(part.absolute()), error.errno
    return str(part.absolute()), status.st_size, status.st_mtime_ns


def cached_readings(
    folder: Path,
    name: str,
    utterances: Sequence[Utterance],
    frontend: FrontEnd,
    computed: Iterable[Reading],
    report: Callable[[str], None],
) -> Iterable[Reading]:
    """The readings of a split from the cache, memory-mapped; computed and written first if the cache lacks them.

    Args:
        folder: folder of the cache.
        name: prefix of the files' names.
        utterances: the utterances of the split.
        frontend: the front end.
        computed: iterates over their readings, used if they are not cached. An exception that it raises stops writing
            and leaves no files.
        report: called with lines about the features' location and damaged files.

    Raises:
        UserError: the file cannot be written.
    """
    key = digest(utterances, frontend)
    if key is None:
        report(f"{name}: features not cached in {folder}: the corpus does not declare the files of its utterances")
        return computed
    path = folder / f"{name}-{key}.npy"
    if path.exists() and path.with_suffix(".json").exists():
        try:
            readings = _open(path, frontend.dim)
        except (OSError, EOFError, ValueError, TypeError, KeyError, BufferError) as damage:
            report(f"{path} is damaged ({str(damage).splitlines()[0]}): it is computed again")
        else:
            report(f"{name}: features read from {path}")
            return readings
    _write(path, frontend.dim, computed)
    report(f"{name}: features cached in {path}")
    return _open(path, frontend.dim)


def _write(path: Path, dim: int, readings: Iterable[Reading]) -> None:
    entries: list[list[object]] = []
    frames = checksum = 0
    with disk_errors(path, "Free space, set data.cache to another folder, or omit it"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(path)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.stem}.", suffix=".tmp") as made:
            with open(Path(made) / path.name, "wb") as stream:
                _write_header(stream, 0, dim)
                for features, *rest in readings:
                    content = np.ascontiguousarray(features, dtype="<f4").data
                    stream.write(content)
                    checksum = zlib.crc32(content, checksum)
                    entries.append([len(features), *rest])
                    frames += len(features)
                stream.seek(0)
                _write_header(stream, frames, dim)
            checksum = zlib.crc32(json.dumps(entries).encode(), checksum)
            index = json.dumps({"utterances": entries, "checksum": checksum})
            (Path(made) / path.with_suffix(".json").name).write_text(index)
            for suffix in (".npy", ".json"):
                os.replace(Path(made) / path.with_suffix(suffix).name, path.with_suffix(suffix))


def _write_header(stream: BinaryIO, frames: int, dim: int) -> None:
    """Write the header of an ``.npy`` file, whose length does not depend on the number of frames."""
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (frames, dim)})


def _clear_up(path: Path) -> None:
    """Remove temporary folders of killed runs that are older than a day."""
    for left in path.parent.glob(f"{path.stem}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left)


def _open(path: Path, dim: int) -> list[Reading]:
    """The readings written by `_write`; raises an error if the files are not valid."""
    index = json.loads(path.with_suffix(".json").read_bytes())
    # Copy on write: a process that writes to a page gets a private copy, and the file is unchanged.
    frames = np.load(path, mmap_mode="c")
    ends = list(itertools.accumulate((count for count, *_ in index["utterances"]), initial=0))
    checksum = zlib.crc32(json.dumps(index["utterances"]).encode(), zlib.crc32(frames.data))
    if (frames.dtype, frames.shape, index["checksum"]) != (np.dtype("<f4"), (ends[-1], dim), checksum):
        raise ValueError("frames, index and checksum do not agree")
    return [
        Reading(np.asarray(frames[start:end]), *rest)
        for (start, end), (_, *rest) in zip(itertools.pairwise(ends), index["utterances"], strict=True)
    ]
