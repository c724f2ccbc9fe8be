"""VoiceBank, the clean half of VoiceBank-DEMAND (Valentini-Botinhao, 2017; CC BY 4.0).

    ROOT/clean_trainset_28spk_wav/p226_001.wav   28 speakers: p226 and p287 are for validation, 26 for training
    ROOT/clean_testset_wav/p232_001.wav          2 speakers

or ``ROOT/train`` and ``ROOT/test``, and optionally ``ROOT/valid``. The speaker is the first part of a file's name.
Files are 48 kHz; the front end resamples them to ``data.rate``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from corpora.audio.io import read_audio
from corpora.recipes.folder import corpus_root, find_audio
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Utterance
from dvae_pyro.errors import UserError

__all__ = ["FOLDERS", "VALIDATION", "open_voicebank"]

#: Possible names of the folder of each split; the first existing one is used.
FOLDERS = {
    "train": ("clean_trainset_28spk_wav", "clean_trainset_wav", "train"),
    "valid": ("valid",),
    "test": ("clean_testset_wav", "test"),
}
#: Validation speakers in the training folder.
VALIDATION = ("p226", "p287")
TRAINING_SPEAKERS = 26


def open_voicebank(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed is not used.

    Raises:
        UserError: The root has no folder of a needed split, a file has another name than VoiceBank's, or a split is
            empty.
    """
    root = corpus_root(settings)
    corpus = Corpus("voicebank", str(root), {})
    for split in needed:
        apart = split == "valid" and _folder(root, "valid") is None
        folder = _folder(root, "train" if apart else split)
        if folder is None:
            raise UserError(_no_folder(root, "train" if apart else split))
        utterances = _utterances(root, folder)
        if apart:
            utterances = [utterance for utterance in utterances if utterance.speaker in VALIDATION]
        elif split == "train":
            utterances = [utterance for utterance in utterances if utterance.speaker not in VALIDATION]
        if not utterances:
            whom = f"of the validation speakers {' or '.join(VALIDATION)} " if apart else ""
            raise UserError(f"no audio {whom}in {folder}: is VoiceBank unpacked there completely?")
        corpus.splits[split] = utterances
        corpus.notes[split] = _notes(split, {utterance.speaker for utterance in utterances}, apart)
    return corpus


def _folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)


def _utterances(root: Path, folder: Path) -> list[Utterance]:
    utterances = []
    for file in find_audio(folder, root):
        name = PurePosixPath(file).name
        match = re.match(r"([ps]\d+)_", name, flags=re.IGNORECASE)
        if match is None:
            raise UserError(
                f"{root / file}: expected a name such as p226_001.wav, as VoiceBank's files have, for the speaker.\n"
                "Remove it, or use --corpus folder for other layouts."
            )
        load = functools.partial(read_audio, root / file)
        utterances.append(Utterance(file, match[1].lower(), load, source=(root / file,)))
    return utterances


def _notes(split: str, speakers: set[str], apart: bool) -> list[str]:
    if split == "train" and len(speakers) != TRAINING_SPEAKERS:
        return [f"{len(speakers)} speakers, expected {TRAINING_SPEAKERS} training speakers for the complete VoiceBank"]
    missing = [speaker for speaker in VALIDATION if speaker not in speakers] if apart else []
    return [f"no utterance of validation speaker {', '.join(missing)}"] if missing else []


def _no_folder(root: Path, split: str) -> str:
    expected = " or ".join(f"{name}/" for name in FOLDERS[split])
    return (
        f"no folder {expected} in {root}: expected VoiceBank's {split} set there.\n"
        "Give the folder that the archives were unpacked to as --root; for other layouts use --corpus folder."
    )
