"""VoiceBank's layout, in small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.recipes.voicebank import VALIDATION
from corpora.registry import open_corpus
from corpora.types import SPLITS, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.sounds import voice

SPEAKERS = [*VALIDATION, *(f"p{number}" for number in range(300, 326))]
"""28, as many as VoiceBank has; the numbers of the 26 are not the real ones."""


def _tree(root: Path, files: Sequence[str]) -> Path:
    sound = 0.5 * voice(0.3, rate=48000)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / file, sound, 48000)
    return root


def _open(root: Path, needed: Sequence[str] = SPLITS) -> Corpus:
    return open_corpus(Data(corpus="voicebank", root=str(root)), 0, needed)


@pytest.mark.parametrize(
    ("train", "test"),
    [("clean_trainset_28spk_wav", "clean_testset_wav"), ("train", "test"), ("clean_trainset_wav", "test")],
)
def test_two_of_28_speakers_validate(tmp_path: Path, train: str, test: str) -> None:
    files = [f"{train}/{speaker}_{number:03d}.wav" for speaker in SPEAKERS for number in (1, 2)]
    root = _tree(tmp_path, [*files, f"{test}/p232_001.wav", f"{test}/p257_001.wav", "noisy_testset_wav/p232_001.wav"])
    corpus = _open(root)
    assert all(u.source == (root / u.file,) for found in corpus.splits.values() for u in found)
    speakers = {split: sorted({u.speaker for u in found}) for split, found in corpus.splits.items()}
    assert speakers == {"train": SPEAKERS[2:], "valid": list(VALIDATION), "test": ["p232", "p257"]}
    assert {split: len(found) for split, found in corpus.splits.items()} == {"train": 52, "valid": 4, "test": 2}
    assert corpus.splits["valid"][0].file == f"{train}/p226_001.wav"
    assert corpus.notes == {"train": [], "valid": [], "test": []}
    assert list(_open(root, ["test"]).splits) == ["test"]


def test_48_khz_is_resampled_and_said(tmp_path: Path) -> None:
    root = _tree(tmp_path, ["clean_testset_wav/p232_001.wav"])
    said: list[str] = []
    frontend = open_frontend(Data(), 257)
    (item,) = load_sequences(_open(root, ["test"]), "test", frontend, sequence_frames=None, report=said.append)
    assert said[0] == "test: resampled 1 of 1 files to 16000 Hz (1 from 48000 Hz)"
    assert item.speaker == "p232" and len(item.x) <= 1 + 0.3 * 16000 / 256


def test_a_folder_of_its_own_for_validation(tmp_path: Path) -> None:
    root = _tree(tmp_path, ["train/p300/p300_001.wav", "train/p226/p226_001.wav", "valid/p287/p287_001.wav"])
    corpus = _open(root, ["train", "valid"])
    assert [u.speaker for u in corpus.splits["train"]] == ["p300"], "a speaker that validates is never trained on"
    assert [u.speaker for u in corpus.splits["valid"]] == ["p287"]
    assert corpus.notes["train"] == ["1 speakers, expected 26 training speakers for the complete VoiceBank"]


def test_what_is_no_voicebank(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus 'voicebank'"):
        open_corpus(Data(corpus="voicebank"), 0)
    with pytest.raises(UserError, match="clean_trainset_28spk_wav/ or clean_trainset_wav/ or train/"):
        _open(_tree(tmp_path, ["wavs/p226_001.wav"]))
    _tree(tmp_path, ["train/p300_001.wav", "train/p226_001.wav"])
    assert _open(tmp_path, ["valid"]).notes["valid"] == ["no utterance of validation speaker p287"]
    with pytest.raises(UserError, match="clean_testset_wav/ or test/"):
        _open(tmp_path, ["test"])
    (tmp_path / "train/p226_001.wav").unlink()
    with pytest.raises(UserError, match="p226 or p287"):
        _open(tmp_path, ["valid"])
    _tree(tmp_path, ["train/speech.wav"])
    with pytest.raises(UserError, match=r"speech\.wav.*p226_001\.wav"):
        _open(tmp_path, ["train"])
