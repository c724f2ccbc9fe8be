"""Matrices of features in Kaldi's archives, compressed or not, decoded by `kaldiio`.

Paths of a ``feats.scp`` are never passed to `kaldiio`, which would run commands among them, and data are passed only if
they begin as a binary matrix: other formats that it reads include pickles, which can run code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.types import AudioFault
from dvae_pyro.errors import UserError

__all__ = ["Place", "find_place", "read_matrix"]

#: First bytes of a binary matrix: float32, float64, compressed to one byte (two formats) or two bytes per value.
HEADS = (b"\0BFM ", b"\0BDM ", b"\0BCM ", b"\0BCM2 ", b"\0BCM3 ")


class Place(NamedTuple):
    """The location of a matrix: archive, offset, and rows (from, to, exclusive; None for all)."""

    path: str
    offset: int
    rows: tuple[int, int] | None


def find_place(value: str, where: str) -> Place:
    """Parse a line of ``feats.scp``, such as ``raw.ark:17`` or ``raw.ark:17[0:99]``.

    Args:
        value: The line without its key.
        where: Name of the line in error messages.

    Raises:
        UserError: The line has another format.

    Example:
        >>> find_place("mfcc/raw.ark:17[5:9]", "feats.scp, a")
        Place(path='mfcc/raw.ark', offset=17, rows=(5, 10))
    """
    match = re.fullmatch(r"(.+?)(?::(\d+))?(?:\[(\d+):(\d+)\])?", value)
    if match is None or value.endswith("|") or match[1].endswith("]") or (match[3] and int(match[4]) < int(match[3])):
        raise UserError(
            f"{where}: got {value!r}, expected a file and an offset, such as raw_mfcc.1.ark:17, optionally with rows "
            "such as [0:99].\nKaldi's copy-feats ark:- ark,scp:feats.ark,feats.scp writes this format."
        )
    rows = (int(match[3]), int(match[4]) + 1) if match[3] else None
    return Place(match[1], int(match[2] or 0), rows)


def read_matrix(path: Path, place: Place) -> NDArray[np.float32]:
    """Read one matrix (rows, columns).

    Raises:
        AudioFault: The file is missing or truncated, has no binary matrix at the offset, fewer rows than selected, or
            values that are not finite.
    """
    from kaldiio.matio import read_matrix_or_vector

    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            head = file.read(6)
            if not head.startswith(HEADS):
                raise AudioFault(
                    f"has no binary matrix of Kaldi at byte {place.offset}, but {head!r}: copy-feats writes binary "
                    "matrices",
                    str(path),
                )
            file.seek(place.offset)
            matrix = np.asarray(read_matrix_or_vector(file))
    except OSError as error:
        raise AudioFault(f"cannot be opened ({error.strerror})", str(path)) from None
    except AudioFault:
        raise
    except Exception as error:  # the library raises errors of many types for damaged files
        raise AudioFault(f"is cut short or damaged in the matrix at byte {place.offset} ({error})", str(path)) from None
    if place.rows is not None:
        if place.rows[1] > len(matrix):
            raise AudioFault(f"holds {len(matrix)} rows at byte {place.offset}, not {place.rows[1]}", str(path))
        matrix = matrix[slice(*place.rows)]
    bad = int((~np.isfinite(matrix)).sum())
    if bad:
        raise AudioFault(f"holds {bad} NaN or infinite values in the matrix at byte {place.offset}", str(path))
    return matrix.astype(np.float32)
