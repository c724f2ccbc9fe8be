r"""Matrices in Kaldi's archives: a place in a file, and from there ``\0B``, what kind it is, its size, its values.

========  ==============================================================================================
``FM``    float32, ``DM`` float64, row by row; rows and columns each as a byte 4 and an int32
``CM``    a byte for each value, column by column, between four percentiles of its column (uint16)
``CM2``   uint16 for each value, row by row
``CM3``   a byte for each value, row by row
========  ==============================================================================================

The compressed kinds begin with smallest value, range (float32), rows and columns (int32), and a whole number n of b
bits stands for min + range * n / (2^b - 1). All numbers have their low byte first.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.types import AudioFault
from dvae_pyro.errors import UserError

__all__ = ["Place", "find_place", "read_matrix"]

#: Bytes of a value, as numpy names them, of the kinds that are not compressed.
PLAIN = {b"FM": "<f4", b"DM": "<f8"}
#: Those of the compressed kinds.
COMPRESSED = {b"CM": "u1", b"CM2": "<u2", b"CM3": "u1"}
#: Numbers that stand for the percentiles 0, 25, 75, 100 of a column, of kind CM.
KNOTS = (0, 64, 192, 255)


class Place(NamedTuple):
    """Where a matrix is: the archive, its offset there, and which of its rows (from, to, exclusive; None for all)."""

    path: str
    offset: int
    rows: tuple[int, int] | None


def find_place(value: str, where: str) -> Place:
    """What a line of ``feats.scp`` stands for, such as ``raw.ark:17`` or ``raw.ark:17[0:99]``.

    Args:
        value: The line without its key.
        where: What to call it in errors.

    Raises:
        UserError: It is not of that form.

    Example:
        >>> find_place("mfcc/raw.ark:17[5:9]", "feats.scp, a")
        Place(path='mfcc/raw.ark', offset=17, rows=(5, 10))
    """
    match = re.fullmatch(r"(.+?)(?::(\d+))?(?:\[(\d+):(\d+)\])?", value)
    if match is None or value.endswith("|") or match[1].endswith("]") or (match[3] and int(match[4]) < int(match[3])):
        raise UserError(
            f"{where}: got {value!r}, expected a file and a place in it, such as raw_mfcc.1.ark:17, and rows such as "
            "[0:99] where only these are meant.\nKaldi's copy-feats ark:- ark,scp:feats.ark,feats.scp writes them."
        )
    rows = (int(match[3]), int(match[4]) + 1) if match[3] else None
    return Place(match[1], int(match[2] or 0), rows)


def read_matrix(path: Path, place: Place) -> NDArray[np.float32]:
    """Read one matrix (rows, columns).

    Raises:
        AudioFault: The file is missing, cut short, holds no binary matrix there, fewer rows than are meant, or values
        that
            are not finite.
    """
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            matrix = _read(file, path)
    except OSError as error:
        raise AudioFault(f"cannot be opened ({error.strerror})", str(path)) from None
    if place.rows is not None:
        if place.rows[1] > len(matrix):
            raise AudioFault(f"holds {len(matrix)} rows at byte {place.offset}, not {place.rows[1]}", str(path))
        matrix = matrix[slice(*place.rows)]
    bad = int((~np.isfinite(matrix)).sum())
    if bad:
        raise AudioFault(f"holds {bad} NaN or infinite values in the matrix at byte {place.offset}", str(path))
    return matrix.astype(np.float32)


def _read(file: BinaryIO, path: Path) -> NDArray[np.float64]:
    begin = file.tell()
    head = file.read(6)
    kind = head[2:].split(b" ")[0]
    if head[:2] != b"\0B" or kind not in (*PLAIN, *COMPRESSED):
        raise AudioFault(
            f"holds no binary matrix of Kaldi at byte {begin}, it starts {head!r} there: copy-feats writes such",
            str(path),
        )
    file.seek(begin + 2 + len(kind) + 1)
    if kind in PLAIN:
        sizes = _bytes(file, 10, path)
        rows, columns = struct.unpack("<xixi", sizes)
        return _values(file, PLAIN[kind], (rows, columns), path)
    low, span, rows, columns = struct.unpack("<ffii", _bytes(file, 16, path))
    if kind != b"CM":
        whole = _values(file, COMPRESSED[kind], (rows, columns), path)
        most = 256 ** np.dtype(COMPRESSED[kind]).itemsize - 1
        return np.asarray(low + span * whole / most)
    knots = low + span * (_values(file, "<u2", (columns, 4), path) / 65535)
    coded = _values(file, COMPRESSED[kind], (columns, rows), path)
    decoded = [np.interp(column, KNOTS, heights) for column, heights in zip(coded, knots, strict=True)]
    return np.stack(decoded, axis=1) if decoded else np.zeros((rows, 0))


def _values(file: BinaryIO, dtype: str, shape: tuple[int, int], path: Path) -> NDArray[np.float64]:
    if min(shape) < 0:
        raise AudioFault(f"holds a matrix of {shape[0]} by {shape[1]}: it is damaged", str(path))
    kind = np.dtype(dtype)
    return (
        np.frombuffer(_bytes(file, shape[0] * shape[1] * kind.itemsize, path), kind).reshape(shape).astype(np.float64)
    )


def _bytes(file: BinaryIO, count: int, path: Path) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise AudioFault(f"is cut short: {count - len(found)} bytes of a matrix are missing", str(path))
    return found
