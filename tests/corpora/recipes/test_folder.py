"""Folders of audio: what is found, who speaks, which split, and what is said when nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.recipes.layouts.assignment import seeded_split
from corpora.registry import open_corpus
from corpora.types import SPLITS, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data


def _tree(root: Path, files: Sequence[str]) -> Path:
    samples = 0.1 * np.random.RandomState(0).standard_normal(4000)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / file, samples, 16000, format=None)
    return root


def _open(root: Path | str | None, needed: Sequence[str] = SPLITS, seed: int = 0) -> Corpus:
    return open_corpus(Data(corpus="folder", root=None if root is None else str(root)), seed, needed)


def test_librispeech_layout(shared: Path) -> None:
    corpus = _open(shared / "corpora/librispeech-mini")
    assert {split: len(found) for split, found in corpus.splits.items()} == {
        "train": 188,
        "valid": 30,
        "test": 40,
    }
    by_file = {u.file: u.speaker for u in corpus.splits["train"]}
    assert by_file["train/19/19-198-0000.flac"] == "19"
    assert len(set(by_file.values())) == 188
    assert corpus.notes["train"] == []
    files = [u.file for u in corpus.splits["test"]]
    assert files == sorted(files)


def test_only_the_needed_split_must_be_there(tmp_path: Path) -> None:
    root = _tree(tmp_path, ["test/a/1.wav"])
    assert [u.file for u in _open(root, ["test"]).splits["test"]] == ["test/a/1.wav"]
    with pytest.raises(UserError, match=r" train .*test \(1 "):
        _open(root, ["train", "test"])


def test_endings_in_any_case_hidden_files_and_links(tmp_path: Path) -> None:
    root = _tree(tmp_path / "root", ["train/a/1.WAV", "train/a/2.flac", "train/b/deep/3.Ogg", "train/b/._4.wav"])
    (root / "train/a/notes.txt").write_text("no audio")
    outside = _tree(tmp_path / "outside", ["5.wav"])
    (root / "train/c").symlink_to(outside)
    (root / "train/b/loop").symlink_to(root / "train")
    found = _open(root, ["train"]).splits["train"]
    assert [u.file for u in found] == [
        "train/a/1.WAV",
        "train/a/2.flac",
        "train/b/deep/3.Ogg",
        "train/c/5.wav",
    ]
    assert [u.speaker for u in found] == ["a", "a", "b", "c"]
    assert all(len(u.sound().samples) == 4000 for u in found)


def test_seeded_split_keeps_speakers_apart(tmp_path: Path) -> None:
    root = _tree(tmp_path, [f"s{speaker}/{index}.wav" for speaker in range(20) for index in range(2)])
    corpus = _open(root)
    speakers = {split: {u.speaker for u in found} for split, found in corpus.splits.items()}
    assert {split: len(names) for split, names in speakers.items()} == {"train": 16, "valid": 2, "test": 2}
    assert len(set.union(*speakers.values())) == 20
    assert sum(len(found) for found in corpus.splits.values()) == 40
    assert "split by seed 0: 32 of 40 files, 16 of 20 speakers" in corpus.notes["train"][0]
    assert _open(root).splits == corpus.splits
    assert _open(root, ["valid"]).splits["valid"] == corpus.splits["valid"]
    assert _open(root, seed=1).splits != corpus.splits


def test_seeded_split_is_no_matter_of_order() -> None:
    names = [f"speaker {number}" for number in range(30)]
    parts = seeded_split(names, 3)
    assert parts == seeded_split(names[::-1], 3)
    assert sorted(sum(parts.values(), [])) == sorted(names)


def test_files_of_a_flat_folder_are_their_own_speakers(tmp_path: Path) -> None:
    corpus = _open(_tree(tmp_path, [f"{index}.wav" for index in range(10)]))
    assert {split: len(found) for split, found in corpus.splits.items()} == {
        "train": 8,
        "valid": 1,
        "test": 1,
    }
    assert all(u.speaker == u.file.removesuffix(".wav") for u in corpus.splits["train"])
    assert "8 of 8 files are in no speaker's folder" in corpus.notes["train"][1]


def test_one_speaker_is_split_by_files_and_said(tmp_path: Path) -> None:
    corpus = _open(_tree(tmp_path, [f"wavs/{index}.wav" for index in range(10)]))
    assert {split: len(found) for split, found in corpus.splits.items()} == {
        "train": 8,
        "valid": 1,
        "test": 1,
    }
    assert "1 speaker(s) by its folders, too few" in corpus.notes["valid"][0]


def test_what_is_no_folder_of_audio(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--root"):
        _open(None)
    with pytest.raises(UserError, match="nowhere.*--root"):
        _open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{tmp_path}: .* flac,"):
        _open(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}: .* flac,"):
        _open(tmp_path, ["train"])
    (tmp_path / "file.wav").write_text("")
    with pytest.raises(UserError, match="file.wav"):
        _open(tmp_path / "file.wav")
    with pytest.raises(UserError, match="small.* 2 "):
        _open(_tree(tmp_path / "small", ["1.wav", "2.wav"]))


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="'foldr'.*'folder'"):
        open_corpus(Data(corpus="foldr"), 0)
    with pytest.raises(UserError, match="'tset'.*'test'"):
        open_corpus(Data(), 0, ["tset"])
