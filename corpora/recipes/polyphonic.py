"""Polyphonic music: four sets of piano rolls (Boulanger-Lewandowski, Bengio & Vincent, "Modeling temporal dependencies
in high-dimensional sequences", 2012), in the MATLAB files of the public TCN code.

    ROOT/JSB_Chorales.mat, ROOT/Nottingham.mat, ROOT/Piano_midi.mat, ROOT/MuseData.mat

``data.subset`` is the name of the file. It has ``traindata``, ``validdata`` and ``testdata``, each a cell array of
sequences (frames, 88) with 1 for pressed keys and 0 for others.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpora.recipes.folder import corpus_root
from corpora.settings import DataSettings
from corpora.types import SPLITS, AudioFault, Corpus, Frames, Utterance
from dvae_pyro.errors import UserError, first_line, nearest

__all__ = ["KEYS", "open_polyphonic"]

#: The array of each split in the file.
KEYS = {"train": "traindata", "valid": "validdata", "test": "testdata"}


def open_polyphonic(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Read the subset ``data.subset``; the seed is not used.

    Sequences are named ``SET/SPLIT/NUMBER``, counted from 0 as in the file, and are checked when they are loaded.

    Raises:
        UserError: ``data.subset`` is not set, there is no such file, it is not a MATLAB file, or lacks a needed split.
    """
    path = _find(corpus_root(settings), settings.subset)
    contents = _read(path)
    corpus = Corpus("polyphonic", str(path.parent), {})
    rolls = {split: _cells(contents[key]) for split, key in KEYS.items() if key in contents}
    twins = _twins({_name(path.stem, split, k): roll for split in rolls for k, roll in enumerate(rolls[split])})
    for split in needed:
        if split not in rolls:
            keys = ", ".join(key for key in contents if not key.startswith("__")) or "nothing"
            raise UserError(f"{path} has no '{KEYS[split]}', which holds split {split}: it has {keys}.")
        if not rolls[split]:
            raise UserError(f"{path}: '{KEYS[split]}' holds no sequence, so there is no split {split}.")
        corpus.splits[split] = [
            Utterance(_name(path.stem, split, k), "", functools.partial(_load, roll), source=(path, split, k))
            for k, roll in enumerate(rolls[split])
        ]
        corpus.notes[split] = [
            f"the same sequence {len(names)} times in {path.name}: {', '.join(names)}"
            for names in twins
            if any(name.split("/")[1] == split for name in names)
        ]
    return corpus


def _name(set_name: str, split: str, number: int) -> str:
    return f"{set_name}/{split}/{number:04d}"


def _find(root: Path, name: str | None) -> Path:
    """The file of a subset."""
    present = sorted(path.stem for path in root.glob("*.mat"))
    if not present:
        raise UserError(f"no .mat file in {root}: expected sets of polyphonic music there, such as JSB_Chorales.mat.")
    sets = ", ".join(present)
    if name is None:
        raise UserError(f"corpus 'polyphonic' has several subsets: set data.subset=NAME, one of {sets}.")
    if name not in present:
        raise UserError(f"data.subset={name}: no {name}.mat in {root}, which has {sets}.{nearest(name, present)}")
    return root / f"{name}.mat"


def _read(path: Path) -> Mapping[str, Any]:
    from scipy.io import loadmat

    try:
        contents: Mapping[str, Any] = loadmat(path)
    except Exception as error:  # SciPy raises errors of many types for damaged files
        raise UserError(f"{path} cannot be read as a MATLAB file (version 7 or older): {first_line(error)}") from error
    return contents


def _cells(held: NDArray[Any]) -> list[NDArray[Any]]:
    """The sequences of a cell array."""
    return [np.asarray(cell) for cell in held.ravel()] if held.dtype == object else [held]


def _load(roll: NDArray[Any]) -> Frames:
    """The frames of a sequence, checked to be a piano roll."""
    if roll.ndim != 2 or roll.dtype.kind not in "buif":
        raise AudioFault(
            f"is not a piano roll: an array of {roll.dtype} of shape {roll.shape}, expected (frames, keys)"
        )
    odd = roll[(roll != 0) & (roll != 1)]
    if len(odd):
        raise AudioFault(f"is not a piano roll: it has {len(odd)} values other than 0 and 1, such as {odd[0]}")
    return Frames(roll.astype(np.float32))


def _twins(rolls: Mapping[str, NDArray[Any]]) -> list[list[str]]:
    """Names of identical sequences, in groups of two or more."""
    names: defaultdict[tuple[tuple[int, ...], bytes], list[str]] = defaultdict(list)
    for name, roll in rolls.items():
        if roll.dtype != object:
            names[roll.shape, roll.tobytes()].append(name)
    return [group for group in names.values() if len(group) > 1]
