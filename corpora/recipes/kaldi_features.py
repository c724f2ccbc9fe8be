"""Matrices of features in Kaldi's archives, compressed or not, decoded by `kaldiio`.

No path of a ``feats.scp`` reaches `kaldiio`, which would run commands among them, and no byte that does not begin a
binary matrix: some of what it reads otherwise are pickles, which can run code.
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

#: How a binary matrix begins: float32, float64, compressed by one byte (two ways) or two bytes a value.
HEADS = (b"\0BFM ", b"\0BDM ", b"\0BCM ", b"\0BCM2 ", b"\0BCM3 ")


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
            that are not finite.
    """
    from kaldiio.matio import read_matrix_or_vector

    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            head = file.read(6)
            if not head.startswith(HEADS):
                raise AudioFault(
                    f"holds no binary matrix of Kaldi at byte {place.offset}, it starts {head!r} there: copy-feats "
                    "writes such",
                    str(path),
                )
            file.seek(place.offset)
            matrix = np.asarray(read_matrix_or_vector(file))
    except OSError as error:
        raise AudioFault(f"cannot be opened ({error.strerror})", str(path)) from None
    except AudioFault:
        raise
    except Exception as error:  # whatever the library raises is about this file
        raise AudioFault(f"is cut short or damaged in the matrix at byte {place.offset} ({error})", str(path)) from None
    if place.rows is not None:
        if place.rows[1] > len(matrix):
            raise AudioFault(f"holds {len(matrix)} rows at byte {place.offset}, not {place.rows[1]}", str(path))
        matrix = matrix[slice(*place.rows)]
    bad = int((~np.isfinite(matrix)).sum())
    if bad:
        raise AudioFault(f"holds {bad} NaN or infinite values in the matrix at byte {place.offset}", str(path))
    return matrix.astype(np.float32)
