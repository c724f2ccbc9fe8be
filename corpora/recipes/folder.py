"""Any folder of audio as a corpus.

The layouts of known corpora, and folders of splits at the top (``train/``, ``dev-clean/``, ``Test/``), are detected
from the paths (`corpora.recipes.layouts`), and one line reports the result. Audio without a split is split by the
seed: 80 % of the speakers for train, 10 % for valid, 10 % for test. If there is a training set but no validation set,
10 % of the training speakers are used for validation.

Without a known layout the speaker is the first folder below the split, or below the root, that is not named after a
kind of file (``wav/``); ``data.speaker_level`` selects another level. A file in no such folder counts as its own
speaker.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from corpora.audio.io import CONVERTED_FIRST, EXTENSIONS, read_audio
from corpora.recipes.layouts.assignment import SplitAssignment, assign_splits, describe
from corpora.recipes.layouts.recognition import FileInfo, read_paths, recognise
from corpora.recipes.layouts.table import LAYOUTS, NONE
from corpora.registry import CORPORA
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Utterance
from dvae_pyro.errors import UserError

__all__ = ["corpus_root", "find_audio", "find_folders", "open_folder"]


def open_folder(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the audio below ``data.root``.

    Raises:
        UserError: There is no audio, or none for a needed split; or the layout is ambiguous
            (`corpora.recipes.layouts.recognition.recognise`).
    """
    root = corpus_root(settings)
    files = find_audio(root, root)
    if not files:
        raise UserError(_nothing_in(root))
    name = recognise(root, files, settings.layout)
    layout = LAYOUTS.get(name or "")
    if layout is not None and layout.loader is not None:
        module, function = CORPORA[layout.loader].split(":")
        corpus: Corpus = getattr(importlib.import_module(module), function)(settings, seed, needed)
        corpus.layout = f"layout {layout.title}: read by the loader of --corpus {layout.loader}"
        return corpus
    reading = read_paths(root, files, name, settings.speaker_level)
    assigned = assign_splits(reading.places, seed)
    if len(assigned.by_seed) == len(SPLITS) and len(files) < len(SPLITS):
        raise UserError(
            f"{root} has {len(files)} audio file(s), too few to split into train, valid and test.\n"
            "Add audio, or sort the files into folders train/, valid/, test/ there."
        )
    title = layout.title if layout is not None else name or NONE
    corpus = Corpus("folder", str(root), {}, layout=f"layout {title}: {describe(reading, assigned, seed)}")
    for split in needed:
        places = assigned.splits[split]
        if not places:
            raise UserError(_no_split(root, split, assigned))
        corpus.splits[split] = [_utterance(root, place) for place in places]
        corpus.notes[split] = _notes(split, assigned, seed)
    return corpus


def corpus_root(settings: DataSettings) -> Path:
    """The folder that ``data.root`` names.

    Raises:
        UserError: ``data.root`` is not set, or is not a folder.
    """
    if not settings.root:
        raise UserError(f"corpus '{settings.corpus}' needs a folder to read: give --root DIR (or data.root=DIR).")
    root = Path(settings.root).expanduser()
    if not root.exists():
        raise UserError(f"no folder {root}: check --root (or data.root), relative paths start at {Path.cwd()}.")
    if not root.is_dir():
        raise UserError(f"{root} is a file, expected a folder: give the folder that holds it as --root.")
    return root


def find_audio(folder: Path, root: Path, endings: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Audio files below `folder`, as paths relative to `root` with forward slashes, sorted.

    Hidden files and folders are skipped (some systems create ``._name.wav`` beside ``name.wav``). Links to folders are
    followed, each folder once. With the default `endings`, compressed audio that must be converted first is included
    (`CONVERTED_FIRST`), unless there is a readable file of the same name beside it.
    """
    paths: list[str] = []
    for parent, folders, files in _walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in files if name.lower().endswith(endings) and not name.startswith(".")]
        if endings is EXTENSIONS:
            read = {PurePosixPath(name).stem for name in names}
            others = (name for name in files if name.lower().endswith(CONVERTED_FIRST) and not name.startswith("."))
            names += [name for name in others if PurePosixPath(name).stem not in read]
        paths += [(Path(parent) / name).relative_to(root).as_posix() for name in names]
    return sorted(paths)


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` that follows links to folders, each folder once."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield parent, folders, files


def find_folders(root: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """All folders below `root` with one of these names (given in lower case; matched in any case), by name.

    Matching folders are not searched further; links are followed, each folder once; hidden folders are skipped.
    """
    folders_by_name: dict[str, list[Path]] = {name: [] for name in names}
    for parent, folders, _ in _walk(root):
        for name in sorted(folders):
            if name.lower() in folders_by_name:
                folders_by_name[name.lower()].append(Path(parent) / name)
        folders[:] = sorted(
            name for name in folders if name.lower() not in folders_by_name and not name.startswith(".")
        )
    return folders_by_name


def _utterance(root: Path, place: FileInfo) -> Utterance:
    path = root / place.file
    return Utterance(place.file, place.speaker, functools.partial(read_audio, path), source=(path,))


def _notes(split: str, assigned: SplitAssignment, seed: int) -> list[str]:
    """The notes about one split."""
    places = assigned.splits[split]
    speakers = {place.speaker for place in places}
    notes = []
    if split in assigned.by_seed:
        total = sum(len(assigned.splits[name]) for name in assigned.by_seed)
        all_speakers = {place.speaker for name in assigned.by_seed for place in assigned.splits[name]}
        note = f"split by seed {seed}: {len(places)} of {total} files"
        if assigned.speaker_disjoint:
            note += f", {len(speakers)} of {len(all_speakers)} speakers (splits are speaker-disjoint)"
        elif all_speakers != {""}:
            note += f"; {len(all_speakers)} speaker(s) by its folders, too few for speaker-disjoint splits"
        notes.append(note)
    flat = sum(place.level == 0 and place.speaker == PurePosixPath(place.file).stem for place in places)
    if flat:
        notes.append(f"{flat} of {len(places)} files are in no speaker's folder: each counts as its own speaker")
    others = {place.speaker for name in SPLITS if name != split for place in assigned.splits[name]} - {""}
    shared = sorted(speakers & others)
    if shared and split not in assigned.by_seed:
        notes.append(f"{len(shared)} of {len(speakers)} speakers are also in another split, such as {shared[0]}")
    return notes


def _no_split(root: Path, split: str, assigned: SplitAssignment) -> str:
    present = [f"{name} ({len(places)} files)" for name, places in assigned.splits.items() if places]
    return (
        f"no audio for split {split} in {root}, which has {', '.join(present)}.\n"
        f"Add audio for it in {root / split}, or split all files by seed with data.layout={NONE}."
    )


def _nothing_in(folder: Path) -> str:
    endings = ", ".join(ending.lstrip(".") for ending in EXTENSIONS)
    return f"no audio below {folder}: expected files ending in {endings} (any case) there or further down."
