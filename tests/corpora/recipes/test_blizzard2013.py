"""Blizzard 2013: a small tree in its layout, split by files, zeros of an mp3's decoder cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio.io import read_audio
from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.registry import open_corpus
from dvae_pyro.errors import UserError
from inference.settings.resolve import resolve
from inference.settings.tree import Settings


def chapters(root: Path, count: int, ending: str = "wav") -> None:
    """Chapters of two books, each with the zeros and the faint noise of a decoder at both ends."""
    random = np.random.RandomState(0)
    for i in range(count):
        folder = root / ("jane_eyre" if i % 2 else "black_beauty")
        folder.mkdir(parents=True, exist_ok=True)
        edge = np.concatenate([np.zeros(1105), np.full(30, 1e-6)])
        sound = np.concatenate([edge, [0.25], random.uniform(-0.5, 0.5, 16100), [0.0, -0.25], edge])
        soundfile.write(folder / f"{i:02d}.{ending}", sound, 16000, **({} if ending == "mp3" else {"subtype": "FLOAT"}))


def settings(root: Path, *more: str) -> Settings:
    return resolve("ms_stcn", overrides=["data.corpus=blizzard2013", f"data.root={root}", *more])


def test_a_tenth_of_the_files_tests_and_a_twentieth_of_the_others_validates(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i % 7}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 7}" / f"{i}.wav").touch()
    data = settings(tmp_path).data
    parts = {split: {u.file for u in found} for split, found in open_corpus(data, 0).splits.items()}
    assert {split: len(files) for split, files in parts.items()} == {"train": 86, "valid": 4, "test": 10}
    assert len(set.union(*parts.values())) == 100
    assert parts["test"] != {u.file for u in open_corpus(data, 1, ["test"]).splits["test"]}


def test_sequences_start_with_the_sound(tmp_path: Path) -> None:
    chapters(tmp_path, 4)
    given = settings(tmp_path, "data.frame_width=2")
    assert given.data.sequence_frames == 4000
    frontend = open_frontend(given.data, given.model.bins)
    corpus = open_corpus(given.data, 0, ["train"])
    sequences = load_sequences(corpus, "train", frontend, sequence_frames=4000)
    assert len(sequences) == 4 and {item.speaker for item in sequences} == {""}
    assert all(float(item.x[0, 0]) == 0.25 for item in sequences if item.start == 0)
    recording = corpus.splits["train"][0].sound().samples
    assert len(recording) == 16103 and recording[-1, 0] == -0.25


def test_a_tree_of_mp3(tmp_path: Path) -> None:
    chapters(tmp_path, 3, "mp3")
    chapter = open_corpus(settings(tmp_path).data, 0, ["train"]).splits["train"][0]
    samples, decoded = chapter.sound().samples, read_audio(tmp_path / chapter.file).samples
    assert 16000 < len(samples) < len(decoded) - 500
    assert min(abs(samples[0, 0]), abs(samples[-1, 0])) >= 0.5 / 2**15


def test_a_split_that_is_there_is_kept(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        chapters(tmp_path / split, 2)
    corpus = open_corpus(settings(tmp_path).data, 0, ["train", "valid"])
    assert {u.file for u in corpus.splits["valid"]} == {"valid/black_beauty/00.wav", "valid/jane_eyre/01.wav"}
    assert len(corpus.splits["train"][0].sound().samples) == 16103


def test_too_few_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 audio"):
        open_corpus(settings(tmp_path).data, 0)
