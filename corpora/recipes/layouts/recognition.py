"""Detection of the layout of a folder of audio (`corpora.recipes.layouts.table`), and speaker and split of each file.

Nothing is guessed: if folders have names of splits and no layout matches all files, `recognise` raises an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from corpora.recipes.layouts.table import LAYOUTS, NONE, SPLIT_WORDS, SPLITS_AT_TOP, Layout
from dvae_pyro.errors import UserError, nearest

__all__ = ["LISTED", "FileInfo", "TreeContents", "meanings", "read_paths", "recognise", "splits_in"]

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_EVAL = re.compile(r"(?<![a-z])eval(uation)?(?![a-z])", re.IGNORECASE)
#: Folders that are named after a kind of file, not a speaker.
_CONTAINER = re.compile(r"(wav|waves?|wavs|flac|mp3|audio|clips|speech|sounds?|recordings|data)\d*", re.IGNORECASE)


LISTED = -1
#: Number of files on which layouts are compared if none matches all.
SAMPLE = 5000


class FileInfo(NamedTuple):
    """Speaker and split of a file.

    Attributes:
        file: Its path relative to the root.
        speaker: Name of the speaker; empty if the corpus has one speaker.
        split: train, valid or test; None if unknown.
        source: The folder or list that defines the split; empty if there is none.
        level: Level of the folder that is named by the speaker, 1 below the root; 0 if there is none, `LISTED` if a
            list names the speaker.
    """

    file: str
    speaker: str
    split: str | None = None
    source: str = ""
    level: int = 0


class TreeContents(NamedTuple):
    """The files of a tree that are read, and the number of omitted files by reason."""

    places: list[FileInfo]
    left_out: Counter[str]


def splits_in(folder: str, words: Mapping[str, str] | None = None) -> set[str]:
    """The splits that occur in a folder's name.

    Args:
        folder: The name.
        words: Words with another split than in `SPLIT_WORDS`.

    Example:
        >>> [splits_in(name) for name in ("train-clean-360", "vox1_dev_wav", "TEST", "Trains")]
        [{'train'}, {'valid'}, {'test'}, set()]
    """
    meanings = {**_SPLIT_OF, **(words or {})}
    return {meanings[word] for word in re.findall(r"[a-z]+", folder.lower()) if word in meanings}


def recognise(root: Path, files: Sequence[str], requested: str | None) -> str | None:
    """Detect the layout of a tree.

    Args:
        root: Its folder, for messages.
        files: Paths relative to it, at least one.
        requested: ``data.layout``; None detects it.

    Returns:
        A name of `LAYOUTS`, ``splits`` or ``none``; None if no layout matches and no folder has a split in its name.

    Raises:
        UserError: `requested` is unknown or matches no file; or no layout matches all files, and folders have names of
            splits or most files match a known corpus.
    """
    if requested is not None:
        return _checked(root, files, requested)
    fitting = next((name for name, layout in LAYOUTS.items() if all(map(layout.pattern.fullmatch, files))), None)
    if fitting is not None:
        return fitting
    folders = _folders(files)
    speaking = [folder for folder in folders if splits_in(folder.name)]
    sample = files[:: 1 + len(files) // SAMPLE]
    best = max(LAYOUTS, key=lambda name: _count(sample, name))
    fits = _count(files, best)
    if fits and (speaking or 2 * fits > len(files)):
        other = next(file for file in files if not LAYOUTS[best].pattern.fullmatch(file))
        raise UserError(
            f"{fits} of {len(files)} audio files in {root} have the layout of {LAYOUTS[best].title}, others have "
            f"not, such as {other}: the splits are ambiguous.\n{_choices(best)}"
        )
    if not speaking:
        return None
    if all(splits_in(folder.name) == splits_in(folder.parts[0]) and _begins(folder.parts[0]) for folder in speaking):
        return SPLITS_AT_TOP
    raise UserError(
        f"folders in {root} have names of splits, {_examples(str(folder) + '/' for folder in speaking)}, but the tree "
        f"has no known layout: the splits are ambiguous.\n{_choices()}"
    )


def read_paths(root: Path, files: Sequence[str], name: str | None, level: int | None) -> TreeContents:
    """Speaker and split of each file, by a layout.

    Args:
        root: The folder of the tree.
        files: Paths relative to it.
        name: The result of `recognise`.
        level: Level of the folders that are named by speaker, counted from 1; None is the layout's level, or the first
            folder (below the split) that is not named after a kind of file, such as ``wav/``.

    Raises:
        UserError: `level` is given for a layout that defines the speaker; a path is in two splits; a list of the corpus
            is missing.
    """
    if name in (None, NONE):
        return TreeContents([_in_tree(file, 0, level) for file in files], Counter())
    if name == SPLITS_AT_TOP:
        return _below_splits(root, files, level)
    assert name is not None
    layout = LAYOUTS[name]
    if level is not None:
        raise UserError(
            f"data.speaker_level={level} has no effect: the layout of {layout.title} defines the speaker.\n"
            f"Omit it, or set data.layout={SPLITS_AT_TOP} or data.layout={NONE}."
        )
    return _by_pattern(root, files, layout)


def _by_pattern(root: Path, files: Sequence[str], layout: Layout) -> TreeContents:
    listed = None if layout.lists is None else layout.lists(root, files)
    of_root = splits_in(root.name) if re.fullmatch(layout.root, root.name, re.IGNORECASE) else set()
    taken: dict[str, FileInfo] = {}
    left: Counter[str] = Counter()
    for file in sorted(files):
        match = layout.pattern.fullmatch(file)
        if match is None:
            left[f"that do not have the layout of {layout.title}"] += 1
        elif re.fullmatch(layout.left_out.paths, file, re.IGNORECASE):
            left[layout.left_out.reason] += 1
        elif listed is not None and file not in listed:
            left["that are in no list of a split"] += 1
        elif (utterance := _utterance(match)) in taken:
            left["that are another recording (microphone) of an utterance that is read"] += 1
        else:
            taken[utterance] = _place(file, match, layout, next(iter(of_root), None))
            if listed is not None:
                split, speaker, source = listed[file]
                place = taken[utterance]
                taken[utterance] = place._replace(split=split, source=source)
                if speaker:
                    taken[utterance] = taken[utterance]._replace(speaker=speaker, level=LISTED)
    return TreeContents(list(taken.values()), left)


def _utterance(match: re.Match[str]) -> str:
    """A path without its ending and without the part that distinguishes recordings of one utterance."""
    stem = match[0].rpartition(".")[0]
    if match.groupdict().get("take") is None:
        return match[0]
    return stem[: match.start("take")] + stem[match.end("take") :]


def _place(file: str, match: re.Match[str], layout: Layout, of_root: str | None) -> FileInfo:
    speaker = match.groupdict().get("speaker") or ""
    level = file[: match.start("speaker")].count("/") + 1 if speaker else 0
    folders = PurePosixPath(match["before"]).parts
    by_folder = {folder: splits for folder in folders if (splits := splits_in(folder, layout.words))}
    splits = set().union(*by_folder.values())
    if len(splits) > 1:
        raise UserError(
            f"{file}: its folders have names of several splits ({', '.join(sorted(splits))}): its split is ambiguous.\n"
            f"{_choices()}"
        )
    split = next(iter(splits), of_root)
    if split is None and layout.test_speakers is not None:
        split = "test" if re.fullmatch(layout.test_speakers, speaker, re.IGNORECASE) else "train"
    return FileInfo(file, speaker, split, next(iter(by_folder), ""), level)


def _below_splits(root: Path, files: Sequence[str], level: int | None) -> TreeContents:
    """Files below folders of splits at the top; others are omitted."""
    split_names = meanings(root, sorted({PurePosixPath(file).parts[0] for file in files if "/" in file}))
    taken = []
    left: Counter[str] = Counter()
    for file in files:
        top = file.partition("/")[0]
        if top in split_names:
            taken.append(_in_tree(file, 1, level)._replace(split=split_names[top], source=top))
        else:
            left[f"in {top}/, which names no split" if top != file else "that are in no folder of a split"] += 1
    return TreeContents(taken, left)


def meanings(root: Path, names: Sequence[str], *, anywhere: bool = False) -> dict[str, str]:
    """The split of each name that contains one.

    Args:
        root: Their folder, for messages.
        names: Names of folders or files.
        anywhere: Whether the split may be anywhere in a name, not only at its beginning.

    Raises:
        UserError: The meaning of ``eval`` is ambiguous.
    """
    single = [name for name in names if len(splits_in(name)) == 1 and (anywhere or _begins(name))]
    split_names = {name: next(iter(splits_in(name))) for name in single}
    evals = [name for name in split_names if _EVAL.search(name)]
    if evals and any(split == "valid" for name, split in split_names.items() if name not in evals):
        if "test" in split_names.values():
            raise UserError(
                f"{root} has {', '.join(split_names)}: whether {evals[0]} is valid or test is ambiguous.\n"
                "Rename it, with dev or test in its name."
            )
        split_names |= dict.fromkeys(evals, "test")
    return split_names


def _begins(folder: str) -> bool:
    """Whether a name begins with a split."""
    word = re.match(r"[a-z]+", folder.lower())
    return word is not None and word[0] in _SPLIT_OF


def _in_tree(file: str, above: int, level: int | None) -> FileInfo:
    """A file of an unknown layout, `above` levels of whose folders do not name the speaker."""
    folders = PurePosixPath(file).parts[:-1]
    if level is None:
        level = above + 1
        while level < len(folders) and _CONTAINER.fullmatch(folders[level - 1]):
            level += 1
    if 1 <= level <= len(folders):
        return FileInfo(file, folders[level - 1], level=level)
    return FileInfo(file, PurePosixPath(file).stem)


def _count(files: Sequence[str], name: str) -> int:
    """The number of files that a layout matches."""
    return sum(LAYOUTS[name].pattern.fullmatch(file) is not None for file in files)


def _checked(root: Path, files: Sequence[str], requested: str) -> str:
    """The requested layout, checked to exist and to match at least one file."""
    known = [*LAYOUTS, SPLITS_AT_TOP, NONE]
    if requested not in known:
        raise UserError(f"data.layout={requested}: expected one of {', '.join(known)}.{nearest(requested, known)}")
    if requested in LAYOUTS and not any(LAYOUTS[requested].pattern.fullmatch(file) for file in files):
        layout = LAYOUTS[requested]
        raise UserError(
            f"data.layout={requested}: no audio file in {root} has the layout of {layout.title}, "
            f"such as {layout.example}: got {files[0]}.\nOmit data.layout to detect the layout."
        )
    return requested


def _folders(files: Iterable[str]) -> list[PurePosixPath]:
    """All folders of these files, at every depth, sorted."""
    folders: set[PurePosixPath] = set()
    for parent in {PurePosixPath(file).parent for file in files}:
        folders.update(folder for folder in (parent, *parent.parents) if folder.name)
    return sorted(folders)


def _examples(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _choices(layout: str | None = None) -> str:
    first = "" if layout is None else f"data.layout={layout} reads only the former and omits the others; or "
    named = "data.layout=NAME reads one of these: " + ", ".join([*LAYOUTS, SPLITS_AT_TOP])
    return (
        f"Choose: {first}give the folder of one corpus as --root; or rename the folders at the top to train, valid, "
        "test;\n"
        f"{named}; data.layout={NONE} splits all files by seed (data.speaker_level=N: level of speakers' folders)."
    )
