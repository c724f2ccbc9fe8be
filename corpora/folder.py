"""Any folder of audio as a corpus.

Two layouts are read:

- ``ROOT/train/...``, ``ROOT/valid/...``, ``ROOT/test/...`` (any of them): the split is taken as it stands;
- otherwise all audio below ``ROOT`` is split by the seed, 80 % train, 10 % valid, 10 % test of the speakers.

In both, a speaker is the first folder below the split, or below the root: ``train/19/19-198-0000.flac`` is
spoken by 19. A file that lies in no such folder is its own speaker.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from corpora.audio import EXTENSIONS, read_audio
from corpora.corpus import SPLITS, Corpus, Utterance
from corpora.settings import DataSettings
from inference.errors import UserError

__all__ = ["SHARES", "corpus_root", "find_audio", "find_folders", "open_folder", "seeded_split"]

#: Share of the speakers that go to each held-out split of a folder without split.
SHARES = {"valid": 0.1, "test": 0.1}


def open_folder(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the audio below ``data.root``."""
    root = corpus_root(settings)
    present = [split for split in SPLITS if (root / split).is_dir()]
    return _split_by_folders(root, present, needed) if present else _split_by_seed(root, seed, needed)


def corpus_root(settings: DataSettings) -> Path:
    """The folder that ``data.root`` names.

    Raises:
        UserError: None is named, or it is no folder.
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

    Hidden files and folders are passed over (some systems leave ``._name.wav`` beside ``name.wav``). Links to
    folders are followed, each folder once.
    """
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            (Path(parent) / name).relative_to(root).as_posix()
            for name in files
            if name.lower().endswith(endings) and not name.startswith(".")
        ]
    return sorted(found)


def find_folders(root: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """All folders below `root` that bear one of these names (lower case), in any case, by name.

    What lies inside of one found is not looked through; links are followed, each folder once, hidden ones not at all.
    """
    found: dict[str, list[Path]] = {name: [] for name in names}
    seen: set[str] = set()
    for parent, folders, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(folders):
            if name.lower() in found:
                found[name.lower()].append(Path(parent) / name)
        folders[:] = sorted(name for name in folders if name.lower() not in found and not name.startswith("."))
    return found


def seeded_split(names: Sequence[str], seed: int, shares: Mapping[str, float] = SHARES) -> dict[str, list[str]]:
    """Deal names to train, valid and test: at least one each where there are three.

    In the order of `shares`, each split gets its share of what is left.

    The order of dealing is that of a hash of seed and name, so it depends neither on the order of `names` nor
    on any library's random numbers.
    """

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()

    dealt = sorted(sorted(set(names)), key=order)
    parts: dict[str, list[str]] = {}
    for split, share in shares.items():
        count = max(1, round(share * len(dealt)))
        parts[split], dealt = sorted(dealt[:count]), dealt[count:]
    return {"train": sorted(dealt), **parts}


def _split_by_folders(root: Path, present: Sequence[str], needed: Sequence[str]) -> Corpus:
    corpus = Corpus("folder", str(root), {})
    for split in needed:
        if split not in present:
            raise UserError(
                f"no folder {split}/ in {root}, which has {', '.join(f'{name}/' for name in present)}.\n"
                f"Put audio for it into {root / split}, or give a root without such folders to have it split."
            )
        files = find_audio(root / split, root)
        if not files:
            raise UserError(_nothing_in(root / split))
        corpus.splits[split] = [_utterance(root, file, depth=1) for file in files]
        flat = sum(len(PurePosixPath(file).parts) == 2 for file in files)
        corpus.notes[split] = [_flat_note(flat, len(files))] if flat else []
    return corpus


def _split_by_seed(root: Path, seed: int, needed: Sequence[str]) -> Corpus:
    files = find_audio(root, root)
    if not files:
        raise UserError(_nothing_in(root))
    if len(files) < 3:
        raise UserError(
            f"{root} holds {len(files)} audio file(s), too few to split into train, valid and test.\n"
            "Add audio, or put what there is into folders train/, valid/, test/ there."
        )
    utterances = [_utterance(root, file, depth=0) for file in files]
    speakers = sorted({utterance.speaker for utterance in utterances})
    apart = len(speakers) >= 3
    parts = seeded_split(speakers if apart else files, seed)
    flat = sum("/" not in file for file in files)
    corpus = Corpus("folder", str(root), {})
    for split in needed:
        chosen = set(parts[split])
        corpus.splits[split] = [u for u in utterances if (u.speaker if apart else u.file) in chosen]
        taken = corpus.splits[split]
        note = f"no train/, valid/, test/ in {root}, so split by seed {seed}: {len(taken)} of {len(files)} files"
        if apart:
            note += f", {len({u.speaker for u in taken})} of {len(speakers)} speakers (no speaker in two splits)"
        else:
            note += f"; its folders show {len(speakers)} speaker(s), too few to keep speakers apart"
        corpus.notes[split] = [note] + ([_flat_note(flat, len(files))] if flat else [])
    return corpus


def _utterance(root: Path, file: str, depth: int) -> Utterance:
    parts = PurePosixPath(file).parts[depth:]
    speaker = parts[0] if len(parts) > 1 else PurePosixPath(file).stem
    return Utterance(file, speaker, functools.partial(read_audio, root / file), source=(root / file,))


def _flat_note(flat: int, total: int) -> str:
    return f"{flat} of {total} files lie in no speaker's folder: each is taken as its own speaker"


def _nothing_in(folder: Path) -> str:
    endings = ", ".join(ending.lstrip(".") for ending in EXTENSIONS)
    return f"no audio below {folder}: expected files ending in {endings} (any case) there or further down."
