"""WSJ0 (LDC93S6A, CSR-I): read speech of the Wall Street Journal.

    ROOT/.../si_tr_s/SPEAKER/*.wv1    train
    ROOT/.../si_dt_05/SPEAKER/*.wv1   valid
    ROOT/.../si_et_05/SPEAKER/*.wv1   test

These folders may be anywhere below the root, also several times, as on the discs (``11-1.1/wsj0/si_tr_s``), in any
case. Files are NIST SPHERE (``.wv1``, ``.wv2``) or wav. Each sentence was recorded by two microphones: ``.wv1``, the
close one, is read, or the converted ``.wav`` if there is one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from corpora.audio.io import read_audio
from corpora.recipes.folder import corpus_root, find_audio, find_folders
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Utterance
from dvae_pyro.errors import UserError

__all__ = ["FOLDERS", "open_wsj0"]

#: The folder of each split.
FOLDERS = {"train": "si_tr_s", "valid": "si_dt_05", "test": "si_et_05"}

#: Endings of one sentence's recordings, in order of preference.
ENDINGS = (".wav", ".wv1", ".wv2")


def open_wsj0(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed is not used.

    Raises:
        UserError: The root has no folder of a needed split, or it has no audio.
    """
    root = corpus_root(settings)
    folders = find_folders(root, FOLDERS.values())
    corpus = Corpus("wsj0", str(root), {})
    for split in needed:
        name = FOLDERS[split]
        if not folders[name]:
            raise UserError(_no_folder(root, split, [other for other, paths in folders.items() if paths]))
        corpus.splits[split], corpus.notes[split] = _utterances(root, folders[name])
        if not corpus.splits[split]:
            endings = ", ".join(ending.lstrip(".") for ending in ENDINGS)
            where = ", ".join(str(folder) for folder in folders[name])
            raise UserError(
                f"no audio below {where}: expected files ending in {endings} (any case) in speakers' folders."
            )
    return corpus


def _utterances(root: Path, folders: Sequence[Path]) -> tuple[list[Utterance], list[str]]:
    """The sentences of a split, each once, and notes about omitted files."""
    recordings: dict[str, dict[str, tuple[str, str]]] = {}
    for folder in folders:
        for file in find_audio(folder, root, ENDINGS):
            inside = PurePosixPath(file).relative_to(folder.relative_to(root).as_posix())
            sentence, ending = str(inside.with_suffix("")).lower(), inside.suffix.lower()
            speaker = inside.parts[0] if len(inside.parts) > 1 else inside.stem[:3]  # names start with the speaker
            recordings.setdefault(sentence, {}).setdefault(ending, (file, speaker.lower()))
    utterances = []
    for by_ending in recordings.values():
        file, speaker = next(by_ending[ending] for ending in ENDINGS if ending in by_ending)
        utterances.append(Utterance(file, speaker, functools.partial(read_audio, root / file), source=(root / file,)))
    left = sum(len(by_ending) - 1 for by_ending in recordings.values())
    notes = [f"left out {left} files: second recordings (wv2) or other formats of the same sentences"] if left else []
    return sorted(utterances, key=lambda utterance: utterance.file), notes


def _no_folder(root: Path, split: str, present: Sequence[str]) -> str:
    name = FOLDERS[split]
    if root.name.lower() in FOLDERS.values():
        return f"no folder {name} below {root}, which is one of WSJ0's splits: give its parent folder as --root."
    has = f"it has {', '.join(present)}" if present else f"it has none of {', '.join(FOLDERS.values())}"
    return (
        f"no folder {name} (WSJ0's {split} split) anywhere below {root}: {has}.\n"
        "Give the folder that the discs were copied to as --root; for other layouts use --corpus folder."
    )
