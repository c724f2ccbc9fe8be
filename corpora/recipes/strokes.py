"""Drawings as the movements of a pen, and the corpus of those that lie in one NumPy archive, as Omniglot's (Lake,
Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction", 2015).

    ROOT/NAME.npz   points (points, 3): x, y (upwards), and 1 at the last point of each stroke, all drawings one after
                    the other; offsets (drawings + 1,): drawing i is points[offsets[i]:offsets[i+1]];
                    alphabet, character, drawer (drawings,), alphabet_names

Drawers 1 to 16 of every alphabet train, 17 and 18 validate, 19 and 20 test. A speaker is a drawer of an alphabet, such
as ``Greek/07``: whether drawer 7 of another alphabet is the same person is not known.
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
    """Frames (T - 1, 3) of a drawing's points (T, 3): how far the pen moves to each point but the first, and whether it
    is lifted there, 1 at the last point of a stroke.

    What a drawing's place on the paper is, and whether its first point is a dot, is not kept.

    Example:
        >>> moves(np.array([[5.0, 5.0, 0.0], [6.0, 7.0, 1.0], [0.0, 7.0, 1.0]])).tolist()
        [[1.0, 2.0, 1.0], [-6.0, 0.0, 1.0]]

    Raises:
        AudioFault: The points are not those of a drawing, or fewer than two.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise AudioFault(f"is no drawing: an array of shape {points.shape}, expected (points, 3)")
    if len(points) < 2:
        raise AudioFault(f"holds {len(points)} point(s), and a movement needs two")
    if not np.isfinite(points).all():
        raise AudioFault("holds positions that are NaN or infinite")
    odd = points[(points[:, 2] != 0) & (points[:, 2] != 1), 2]
    if len(odd):
        raise AudioFault(f"is no drawing: whether the pen is lifted is 0 or 1, and {odd[0]:g} is in its place")
    offsets = np.diff(points[:, :2].astype(np.float64), axis=0)
    return np.concatenate([offsets, points[1:, 2:]], axis=1).astype(np.float32)


def positions(frames: Points) -> NDArray[np.float32]:
    """Points (T + 1, 3) of frames (T, 3), from the origin on, where the pen is down: undoes `moves`.

    Example:
        >>> positions(moves(np.array([[0.0, 0.0, 0.0], [6.0, 7.0, 1.0], [0.0, 7.0, 1.0]]))).tolist()
        [[0.0, 0.0, 0.0], [6.0, 7.0, 1.0], [0.0, 7.0, 1.0]]
    """
    points = np.zeros((len(frames) + 1, 3))
    points[1:, :2] = np.cumsum(frames[:, :2], axis=0, dtype=np.float64)
    points[1:, 2] = frames[:, 2]
    return points.astype(np.float32)


def moving(load: Callable[[], Points], settings: DataSettings, split: str, *key: object) -> Callable[[], Frames]:
    r"""What reads the frames of a drawing, with noise against discretisation where ``data.dequantise`` asks for it.

    Positions lie on a grid of width 1, so moves have a density without bound. With ``data.dequantise=all`` every
    position
    gets u uniform on :math:`[-1/2, 1/2]^2`, as the paper of MS-STCN has it: a density p of noisy drawings then bounds
    the probability of the true ones, :math:`E_u \log p(x + u) \le \log P(x)` (Theis, van den Oord & Bethge, "A note on
    the evaluation of generative models", 2016), in training and in test alike. ``data.dequantise=train`` is as the
    paper's public code: the moves get it, so that positions drift, and those of the training split alone. It is drawn
    once for each drawing.

    Args:
        load: Reads the points (T, 3).
        settings: The ``data`` settings.
        split: What the drawing is for.
        key: Decides the noise: the seed and the drawing's name.
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
    """Read the one archive in ``data.root``; the seed decides the noise.

    Drawings are called ``ALPHABET/CHARACTER/DRAWER``, such as ``Greek/03/07``, and are checked when they are loaded.

    Raises:
        UserError: There is no archive, or more than one, it cannot be read, an array is missing or does not fit the
            others, or nobody who draws for a needed split is in it.
    """
    path = _find(corpus_root(settings))
    held = _read(path)
    names = [str(held["alphabet_names"][index]) for index in held["alphabet"]]
    corpus = Corpus("strokes", str(path.parent), {})
    for split in needed:
        chosen = np.flatnonzero(np.isin(held["drawer"], DRAWERS[split]))
        if len(chosen) == 0:
            raise UserError(
                f"{path} has no drawing of drawers {DRAWERS[split][0]} to {DRAWERS[split][-1]}, who are split {split}."
            )
        found, dots = [], 0
        for number in chosen.tolist():
            drawer = f"{int(held['drawer'][number]):02d}"
            file = f"{names[number]}/{int(held['character'][number]):02d}/{drawer}"
            first, last = (int(place) for place in held["offsets"][number : number + 2])
            load = functools.partial(_slice, held["points"], first, last)
            dots += bool(first < last and held["points"][first, 2] == 1)
            labels = {"alphabet": names[number], "character": int(held["character"][number])}
            moved, source = (
                moving(load, settings, split, seed, file),
                (path, settings.dequantise, split, seed, first, last),
            )
            found.append(Utterance(file, f"{names[number]}/{drawer}", moved, labels, source))
        corpus.splits[split] = sorted(found, key=lambda utterance: utterance.file)
        corpus.notes[split] = [f"{dots} drawings begin with a dot, which is lost"] if dots else []
    return corpus


def _slice(points: Points, first: int, last: int) -> Points:
    return points[first:last]


def _find(root: Path) -> Path:
    found = sorted(root.glob("*.npz"))
    if len(found) != 1:
        holds = f"{len(found)} of them ({', '.join(path.name for path in found[:5])})" if found else "none"
        raise UserError(f"corpus 'strokes' is one .npz file in its folder, and {root} holds {holds}: check --root.")
    return found[0]


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of an archive, those that must be there of sizes that fit."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy and zipfile raise nearly anything at a damaged file
        raise UserError(f"{path} cannot be read as a NumPy archive: {first_line(error)}") from error
    missing = [name for name in ARRAYS if name not in held]
    if missing:
        raise UserError(f"{path} has no array '{missing[0]}': it has {', '.join(held) or 'nothing'}.")
    points, offsets = held["points"], held["offsets"]
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
        raise UserError(f"{path}: 'points' is {points.dtype} of shape {points.shape}, expected numbers (points, 3).")
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 0
    if not whole or offsets[0] != 0 or offsets[-1] != len(points) or bool((offsets[1:] < offsets[:-1]).any()):
        raise UserError(f"{path}: 'offsets' must rise from 0 to {len(points)}, the number of points.")
    for name in ("alphabet", "character", "drawer"):
        if held[name].shape != (len(offsets) - 1,) or held[name].dtype.kind not in "iu":
            raise UserError(
                f"{path}: '{name}' is {held[name].dtype} of shape {held[name].shape}, expected a whole number for "
                f"each of {len(offsets) - 1} drawings."
            )
    if not bool(((held["alphabet"] >= 0) & (held["alphabet"] < len(held["alphabet_names"]))).all()):
        raise UserError(f"{path}: 'alphabet' must number the {len(held['alphabet_names'])} 'alphabet_names' from 0 on.")
    return held
