"""WSJ0 (LDC93S6A, CSR-I): read speech of the Wall Street Journal.

    ROOT/.../si_tr_s/SPEAKER/*.wv1    train
    ROOT/.../si_dt_05/SPEAKER/*.wv1   valid
    ROOT/.../si_et_05/SPEAKER/*.wv1   test

These folders may lie anywhere below the root, and more than once, as on the discs (``11-1.1/wsj0/si_tr_s``), in
capitals or not. Files are NIST SPHERE (``.wv1``, ``.wv2``) or wav. Each sentence was recorded by two microphones: of a
pair ``.wv1`` is taken, the close one, and where a sentence has been converted to ``.wav``, that.
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

#: Where each split lies.
FOLDERS = {"train": "si_tr_s", "valid": "si_dt_05", "test": "si_et_05"}

#: Endings of one sentence's recordings, the one to take first.
ENDINGS = (".wav", ".wv1", ".wv2")


def open_wsj0(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed decides nothing.

    Raises:
        UserError: The root has no folder of a needed split, or no audio is in it.
    """
    root = corpus_root(settings)
    folders = find_folders(root, FOLDERS.values())
    corpus = Corpus("wsj0", str(root), {})
    for split in needed:
        name = FOLDERS[split]
        if not folders[name]:
            raise UserError(_no_folder(root, split, [other for other, found in folders.items() if found]))
        corpus.splits[split], corpus.notes[split] = _utterances(root, folders[name])
        if not corpus.splits[split]:
            endings = ", ".join(ending.lstrip(".") for ending in ENDINGS)
            where = ", ".join(str(folder) for folder in folders[name])
            raise UserError(
                f"no audio below {where}: expected files ending in {endings} (any case) in speakers' folders."
            )
    return corpus


def _utterances(root: Path, folders: Sequence[Path]) -> tuple[list[Utterance], list[str]]:
    """The sentences of a split, each once, and what to say about those left out."""
    recordings: dict[str, dict[str, tuple[str, str]]] = {}
    for folder in folders:
        for file in find_audio(folder, root, ENDINGS):
            inside = PurePosixPath(file).relative_to(folder.relative_to(root).as_posix())
            sentence, ending = str(inside.with_suffix("")).lower(), inside.suffix.lower()
            speaker = inside.parts[0] if len(inside.parts) > 1 else inside.stem[:3]  # names start with the speaker
            recordings.setdefault(sentence, {}).setdefault(ending, (file, speaker.lower()))
    taken = []
    for found in recordings.values():
        file, speaker = next(found[ending] for ending in ENDINGS if ending in found)
        taken.append(Utterance(file, speaker, functools.partial(read_audio, root / file), source=(root / file,)))
    left = sum(len(found) - 1 for found in recordings.values())
    notes = [f"left out {left} files that are other recordings (wv2) or forms of a sentence taken"] if left else []
    return sorted(taken, key=lambda utterance: utterance.file), notes


def _no_folder(root: Path, split: str, present: Sequence[str]) -> str:
    name = FOLDERS[split]
    if root.name.lower() in FOLDERS.values():
        return f"no folder {name} below {root}, itself one of WSJ0's splits: give the folder above it as --root."
    has = f"it has {', '.join(present)}" if present else f"none of {', '.join(FOLDERS.values())} is there"
    return (
        f"no folder {name} (WSJ0's {split} split) anywhere below {root}: {has}.\n"
        "Give the folder that the discs were copied to as --root; for audio laid out otherwise take --corpus folder."
    )
