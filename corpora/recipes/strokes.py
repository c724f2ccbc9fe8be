"""Drawings as movements of a pen, and the corpus of drawings in one NumPy archive, such as Omniglot (Lake,
Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction", 2015).

    ROOT/NAME.npz   points (points, 3): x, y (upwards), and 1 at the last point of each stroke, all drawings
                    concatenated; offsets (drawings + 1,): drawing i is points[offsets[i]:offsets[i+1]];
                    alphabet, character, drawer (drawings,), alphabet_names

Drawers 1 to 16 of every alphabet are for training, 17 and 18 for validation, 19 and 20 for test. The speaker is a
drawer of an alphabet, such as ``Greek/07``; whether drawer 7 of another alphabet is the same person is unknown.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.recipes.folder import corpus_root
from corpora.settings import DataSettings
from corpora.types import SPLITS, AudioFault, Corpus, Frames, Utterance
from dvae_pyro.errors import UserError, first_line

__all__ = ["DRAWERS", "moves", "moving", "open_strokes", "positions"]

#: Drawers of each split.
DRAWERS = {"train": range(1, 17), "valid": range(17, 19), "test": range(19, 21)}
ARRAYS = ("points", "offsets", "alphabet", "character", "drawer", "alphabet_names")

Points = NDArray[np.floating[Any]]


def moves(points: Points) -> NDArray[np.float32]:
    """Frames (T - 1, 3) of a drawing's points (T, 3): the offset to each point except the first, and 1 if the pen is
    lifted there, at the last point of a stroke.

    The position of the drawing, and whether its first point is a dot, are lost.

    Example:
        >>> moves(np.array([[5.0, 5.0, 0.0], [6.0, 7.0, 1.0], [0.0, 7.0, 1.0]])).tolist()
        [[1.0, 2.0, 1.0], [-6.0, 0.0, 1.0]]

    Raises:
        AudioFault: The points are not a drawing, or fewer than two.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise AudioFault(f"is not a drawing: an array of shape {points.shape}, expected (points, 3)")
    if len(points) < 2:
        raise AudioFault(f"has {len(points)} point(s), but a movement needs two")
    if not np.isfinite(points).all():
        raise AudioFault("has positions that are NaN or infinite")
    odd = points[(points[:, 2] != 0) & (points[:, 2] != 1), 2]
    if len(odd):
        raise AudioFault(f"is not a drawing: got {odd[0]:g} as the state of the pen, expected 0 or 1 (lifted)")
    offsets = np.diff(points[:, :2].astype(np.float64), axis=0)
    return np.concatenate([offsets, points[1:, 2:]], axis=1).astype(np.float32)


def positions(frames: Points) -> NDArray[np.float32]:
    """Points (T + 1, 3) of frames (T, 3), starting at the origin with the pen down: the inverse of `moves`.

    Example:
        >>> positions(moves(np.array([[0.0, 0.0, 0.0], [6.0, 7.0, 1.0], [0.0, 7.0, 1.0]]))).tolist()
        [[0.0, 0.0, 0.0], [6.0, 7.0, 1.0], [0.0, 7.0, 1.0]]
    """
    points = np.zeros((len(frames) + 1, 3))
    points[1:, :2] = np.cumsum(frames[:, :2], axis=0, dtype=np.float64)
    points[1:, 2] = frames[:, 2]
    return points.astype(np.float32)


def moving(load: Callable[[], Points], settings: DataSettings, split: str, *key: object) -> Callable[[], Frames]:
    r"""A function that reads the frames of a drawing and adds dequantisation noise according to ``data.dequantise``.

    Positions are integers, so densities of moves are unbounded. With ``data.dequantise=all``, u uniform on
    :math:`[-1/2, 1/2]^2` is added to every position, as in the paper of MS-STCN: a density p of noisy drawings is then
    a bound on the probability of the true ones, :math:`E_u \log p(x + u) \le \log P(x)` (Theis, van den Oord & Bethge,
    "A note on the evaluation of generative models", 2016), in training and test. ``data.dequantise=train`` follows the
    paper's public code: the noise is added to the moves, so that positions drift, and only in the training split. It is
    drawn once per drawing.

    Args:
        load: Reads the points (T, 3).
        settings: The ``data`` settings.
        split: The split of the drawing.
        key: The seed of the noise: the corpus' seed and the drawing's name.
    """
    on_moves = settings.dequantise == "train"
    noisy = settings.dequantise is not None and (not on_moves or split == "train")
    return functools.partial(_frames, load, key if noisy else None, on_moves)


def _frames(load: Callable[[], Points], key: tuple[object, ...] | None, on_moves: bool) -> Frames:
    points = load()
    frames = moves(points)
    if key is not None:
        digest = hashlib.sha256("/".join(map(str, key)).encode("utf-8", "surrogateescape")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        noise = torch.rand(len(points), 2, generator=generator, dtype=torch.float64).numpy() - 0.5
        frames[:, :2] += noise[1:] if on_moves else np.diff(noise, axis=0)
    return Frames(frames)


def open_strokes(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Read the archive in ``data.root``; the seed is that of the noise.

    Drawings are named ``ALPHABET/CHARACTER/DRAWER``, such as ``Greek/03/07``, and are checked when they are loaded.

    Raises:
        UserError: There is no archive, or more than one, it cannot be read, an array is missing or does not fit the
            others, or it has no drawing for a needed split.
    """
    path = _find(corpus_root(settings))
    arrays = _read(path)
    names = [str(arrays["alphabet_names"][index]) for index in arrays["alphabet"]]
    corpus = Corpus("strokes", str(path.parent), {})
    for split in needed:
        numbers = np.flatnonzero(np.isin(arrays["drawer"], DRAWERS[split]))
        if len(numbers) == 0:
            raise UserError(
                f"{path} has no drawing of drawers {DRAWERS[split][0]} to {DRAWERS[split][-1]}, who are split {split}."
            )
        drawings, dots = [], 0
        for number in numbers.tolist():
            drawer = f"{int(arrays['drawer'][number]):02d}"
            file = f"{names[number]}/{int(arrays['character'][number]):02d}/{drawer}"
            first, last = (int(place) for place in arrays["offsets"][number : number + 2])
            load = functools.partial(_slice, arrays["points"], first, last)
            dots += bool(first < last and arrays["points"][first, 2] == 1)
            labels = {"alphabet": names[number], "character": int(arrays["character"][number])}
            moved, source = (
                moving(load, settings, split, seed, file),
                (path, settings.dequantise, split, seed, first, last),
            )
            drawings.append(Utterance(file, f"{names[number]}/{drawer}", moved, labels, source))
        corpus.splits[split] = sorted(drawings, key=lambda utterance: utterance.file)
        corpus.notes[split] = [f"{dots} drawings begin with a dot, which is lost"] if dots else []
    return corpus


def _slice(points: Points, first: int, last: int) -> Points:
    return points[first:last]


def _find(root: Path) -> Path:
    archives = sorted(root.glob("*.npz"))
    if len(archives) != 1:
        holds = f"{len(archives)} of them ({', '.join(path.name for path in archives[:5])})" if archives else "none"
        raise UserError(f"corpus 'strokes' needs one .npz file in its folder, but {root} holds {holds}: check --root.")
    return archives[0]


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of an archive, with required arrays checked for presence and consistent sizes."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # NumPy and zipfile raise errors of many types for damaged files
        raise UserError(f"{path} cannot be read as a NumPy archive: {first_line(error)}") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise UserError(f"{path} has no array '{missing[0]}': it has {', '.join(arrays) or 'nothing'}.")
    points, offsets = arrays["points"], arrays["offsets"]
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
        raise UserError(f"{path}: 'points' is {points.dtype} of shape {points.shape}, expected numbers (points, 3).")
    are_integers = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 0
    if not are_integers or offsets[0] != 0 or offsets[-1] != len(points) or bool((offsets[1:] < offsets[:-1]).any()):
        raise UserError(f"{path}: 'offsets' must increase from 0 to {len(points)}, the number of points.")
    for name in ("alphabet", "character", "drawer"):
        if arrays[name].shape != (len(offsets) - 1,) or arrays[name].dtype.kind not in "iu":
            raise UserError(
                f"{path}: '{name}' is {arrays[name].dtype} of shape {arrays[name].shape}, expected an integer for "
                f"each of {len(offsets) - 1} drawings."
            )
    alphabets = len(arrays["alphabet_names"])
    if not bool(((arrays["alphabet"] >= 0) & (arrays["alphabet"] < alphabets)).all()):
        raise UserError(f"{path}: 'alphabet' must have indices of the {alphabets} 'alphabet_names', counted from 0.")
    return arrays
