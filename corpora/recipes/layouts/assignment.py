"""Assignment of files to splits, by their folders or lists, else by a seed; and the line that describes it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from corpora.recipes.layouts.recognition import LISTED, FileInfo, TreeContents

__all__ = ["SHARES", "SplitAssignment", "assign_splits", "describe", "seeded_split"]

SPLITS = ("train", "valid", "test")
#: Fraction of the speakers for each held-out split of a corpus without splits.
SHARES = {"valid": 0.1, "test": 0.1}
#: Smallest number of training files from which a validation set is held out.
FEWEST = 10
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class SplitAssignment(NamedTuple):
    """Files by split.

    Attributes:
        splits: The files of each split, sorted by path.
        by_seed: The splits that were drawn by the seed.
        speaker_disjoint: Whether these splits are speaker-disjoint.
        unplaced: Number of files without a split, where others have one; they are not read.
    """

    splits: dict[str, list[FileInfo]]
    by_seed: tuple[str, ...]
    speaker_disjoint: bool
    unplaced: int


def assign_splits(places: Sequence[FileInfo], seed: int, *, validated: bool = False) -> SplitAssignment:
    """Assign files to splits.

    If no file has a split, train, valid and test are drawn by the seed. If there are at least ten training files and no
    validation set, the latter is drawn from the former. Speakers are drawn if there are at least three, else files.

    Args:
        places: The files.
        seed: The seed.
        validated: Whether a validation set exists that is not among these files.
    """
    splits: dict[str, list[FileInfo]] = {split: [p for p in places if p.split == split] for split in SPLITS}
    unplaced = [place for place in places if place.split is None]
    if any(splits.values()):
        pool, shares = splits["train"], {"valid": SHARES["valid"]}
        if validated or splits["valid"] or len(pool) < FEWEST:
            return SplitAssignment(splits, (), True, len(unplaced))
        left_out = len(unplaced)
    else:
        pool, shares, left_out = unplaced, SHARES, 0
    speakers = {place.speaker for place in pool}
    speaker_disjoint = len(speakers) >= 3
    parts = seeded_split(sorted(speakers) if speaker_disjoint else [place.file for place in pool], seed, shares)
    for split, names in parts.items():
        members = set(names)
        splits[split] = [place for place in pool if (place.speaker if speaker_disjoint else place.file) in members]
    return SplitAssignment(splits, tuple(split for split in SPLITS if split in parts), speaker_disjoint, left_out)


def describe(reading: TreeContents, assigned: SplitAssignment, seed: int) -> str:
    """One line on the folders of each split, the source of speakers' names, and omitted files.

    Example:
        >>> places = [FileInfo(f"{s}/{n}/{n}.wav", n, split, s, 2) for s, n, split in
        ...           [("train-a", "19", "train"), ("train-b", "20", "train"), ("dev-a", "21", "valid")]]
        >>> describe(TreeContents(places, {}), assign_splits(places, 0), 0)
        'train-* to train, dev-* to valid; speaker = second folder (3)'
    """
    parts = []
    for split in SPLITS:
        if assigned.splits[split] and split not in assigned.by_seed:
            parts.append(f"{_sources(assigned.splits[split], 'speakers of its test list')} to {split}")
    if assigned.by_seed == SPLITS:
        parts.append(f"no folders of splits: {_share('valid', assigned)} to valid, 10 % to test by seed {seed}")
    elif assigned.by_seed:
        trained = [place for split in assigned.by_seed for place in assigned.splits[split]]
        share = f"{_share('valid', assigned)} of these to valid by seed {seed}"
        parts.insert(0, f"{_sources(trained, 'all others')} to train, {share}")
    lines = [", ".join(parts), f"speaker = {_speaker(reading.places)}"]
    left = dict(reading.left_out)
    if assigned.unplaced:
        left["that are in no folder of a split"] = left.get("that are in no folder of a split", 0) + assigned.unplaced
    lines += [f"left out {count} files {reason}" for reason, count in left.items()]
    return "; ".join(lines)


def seeded_split(names: Sequence[str], seed: int, shares: Mapping[str, float] = SHARES) -> dict[str, list[str]]:
    """Assign names to train, valid and test, at least one each if there are three.

    In the order of `shares`, each split gets its fraction of the remaining names.

    Names are assigned in the order of a hash of seed and name, which depends neither on the order of `names` nor on
    the random number generator of a library.
    """

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()

    assigned = sorted(sorted(set(names)), key=order)
    parts: dict[str, list[str]] = {}
    for split, share in shares.items():
        count = max(1, round(share * len(assigned)))
        parts[split], assigned = sorted(assigned[:count]), assigned[count:]
    return {"train": sorted(assigned), **parts}


def _with_star(source: str) -> str:
    """A folder's name with its suffix replaced by a star.

    Example:
        >>> _with_star("train-clean-360"), _with_star("Dev"), _with_star("train.tsv")
        ('train-*', 'Dev', 'train.tsv')
    """
    match = re.fullmatch(r"([A-Za-z]+[-_]?)[A-Za-z0-9_-]+", source)
    return source if match is None or match[1] == source or match[1].isalpha() else f"{match[1]}*"


def _sources(places: Iterable[FileInfo], nameless: str) -> str:
    """The folders or lists that define a split; `nameless` if there are none."""
    return ", ".join(dict.fromkeys(_with_star(place.source) or nameless for place in places))


def _share(split: str, assigned: SplitAssignment) -> str:
    return f"{SHARES[split]:.0%}".replace("%", " %") + (
        " of the speakers" if assigned.speaker_disjoint else " of the files"
    )


def _speaker(places: Iterable[FileInfo]) -> str:
    """The source of the speakers' names."""
    places = list(places)
    count = len({place.speaker for place in places})
    levels = {place.level for place in places}
    if {place.speaker for place in places} == {""}:
        return "one for the whole corpus"
    if levels == {LISTED}:
        return f"from the lists ({count})"
    if levels == {0}:
        return f"the file's name ({count})"
    if len(levels) == 1:
        level = levels.pop()
        return f"{ORDINALS[level - 1] if level <= len(ORDINALS) else f'{level}th'} folder ({count})"
    return f"a folder, or the file's name if there is none ({count})"
