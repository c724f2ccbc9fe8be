"""Kaldi's data folders, in small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.registry import open_corpus
from corpora.types import SPLITS, AudioFault, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.sounds import RATE
from tests.support.sphere import SAMPLES, sphere


def _folder(folder: Path, **tables: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        file = "wav.scp" if name == "wav" else name
        (folder / file).write_text("".join(f"{key} {value}\n" for key, value in table.items()))
    return folder


def _sounds(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        soundfile.write(folder / name, SAMPLES, RATE)


def _open(root: Path, needed: Sequence[str] = SPLITS) -> Corpus:
    return open_corpus(Data(corpus="kaldi", root=str(root)), 0, needed)


def test_splits_speakers_and_labels(tmp_path: Path) -> None:
    _sounds(tmp_path / "wav", "a.wav", "b.wav", "c.flac")
    data = tmp_path / "data"
    for split, name in (("train", "a"), ("dev", "b"), ("test", "a")):
        _folder(data / split, wav={f"{split}-{name}": f"wav/{name}.wav"}, utt2spk={f"{split}-{name}": "s1"})
    _folder(data / "test", spk2gender={"s1": "f"}, text={"test-a": "two words"})
    corpus = _open(data)
    assert {split: [(u.file, u.speaker) for u in found] for split, found in corpus.splits.items()} == {
        "train": [("train/train-a", "s1")],
        "valid": [("dev/dev-b", "s1")],
        "test": [("test/test-a", "s1")],
    }
    utterance = corpus.splits["test"][0]
    assert utterance.labels == {"sex": "f", "text": "two words"}
    assert np.array_equal(utterance.sound().samples[:, 0] * 32768, SAMPLES)  # path from two folders above


def test_commands_that_only_decode_are_read_and_others_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.wv1").write_bytes(sphere())
    _sounds(tmp_path, "b.flac")
    soundfile.write(tmp_path / "c.wav", np.stack([SAMPLES, SAMPLES // 2], 1), RATE)
    wav = {
        "a": f"/opt/kaldi/sph2pipe -f wav -p {tmp_path}/a.wv1 |",
        "b": "flac -c -d -s b.flac |",
        "c": "sph2pipe -f wav -p -c 2 c.wav |",
    }
    _folder(tmp_path / "test", wav=wav)
    corpus = _open(tmp_path, ["test"])
    a, b, c = (utterance.sound().samples for utterance in corpus.splits["test"])
    assert np.array_equal(a, b) and np.array_equal(a[:, 0] * 32768, SAMPLES)
    assert np.array_equal(c[:, 0] * 32768, SAMPLES // 2)
    assert corpus.notes["test"] == ["no utt2spk: each utterance counts as its own speaker"]
    for command in ("touch {0}/ran |", "sox x.wav -t wav - |", "cat x.wav | touch {0}/ran |"):
        _folder(tmp_path / "test", wav={"a": command.format(tmp_path)})
        with pytest.raises(UserError, match=r"wav\.scp, a .*command"):
            _open(tmp_path, ["test"])
    assert not (tmp_path / "ran").exists()
    _folder(tmp_path / "test", wav={"a": "wavs.ark:17"})
    with pytest.raises(UserError, match=r"'wavs\.ark:17'"):
        _open(tmp_path, ["test"])


def test_segments_are_cut_to_the_sample(tmp_path: Path) -> None:
    _sounds(tmp_path, "r.wav")
    segments = {"u1": "r 0.1 0.3", "u2": "r 0.25 -1", "u3": "r 0.3 0.7", "u4": "r 0.3 9.0"}
    _folder(tmp_path / "test", wav={"r": "r.wav"}, segments=segments, utt2spk=dict.fromkeys(segments, "s"))
    u1, u2, u3, u4 = _open(tmp_path, ["test"]).splits["test"]
    assert np.array_equal(u1.sound().samples[:, 0] * 32768, SAMPLES[1600:4800])
    assert np.array_equal(u2.sound().samples[:, 0] * 32768, SAMPLES[4000:])
    assert np.array_equal(u3.sound().samples[:, 0] * 32768, SAMPLES[4800:])
    assert len({u.source for u in (u1, u2, u3, u4)}) == 4 and str(u1.source[0]).endswith("r.wav")
    with pytest.raises(AudioFault, match=r" 0\.3 to 9 s .*0\.50 s"):
        u4.load()
    for line in ("r 0.3 0.1", "r zero 1", "r 1", "r 0 nan"):
        _folder(tmp_path / "test", segments={"u1": line})
        with pytest.raises(UserError, match=r"segments, u1: "):
            _open(tmp_path, ["test"])
    _folder(tmp_path / "test", segments={"u1": "q 0 1"})
    with pytest.raises(UserError, match=" q .*wav.scp"):
        _open(tmp_path, ["test"])


def test_one_folder_is_split_by_speakers(tmp_path: Path) -> None:
    names = [f"s{s}-{u}" for s in range(10) for u in range(2)]
    _folder(tmp_path, wav={name: f"{name}.wav" for name in names}, utt2spk={name: name[:2] for name in names})
    corpus = _open(tmp_path)
    speakers = {split: {u.speaker for u in found} for split, found in corpus.splits.items()}
    assert [len(speakers[split]) for split in SPLITS] == [8, 1, 1] and len(set.union(*speakers.values())) == 10
    assert "split by seed 0: 16 of 20 utterances, speaker-disjoint" in corpus.notes["train"][0]


def test_what_is_no_kaldi_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"valid/ or dev/ or cv/ .*wav\.scp"):
        _open(tmp_path, ["valid"])
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match=r"wav\.scp .*No such file"):
        _open(tmp_path, ["test"])
    _folder(tmp_path / "test", wav={"a": "a.wav"}, utt2spk={"b": "s"})
    with pytest.raises(UserError, match=r"utt2spk .* 1 of 1 .* a"):
        _open(tmp_path, ["test"])
    (tmp_path / "test" / "utt2spk").write_text("a s\na t\n")
    with pytest.raises(UserError, match=r"utt2spk, line 2: a "):
        _open(tmp_path, ["test"])
    (tmp_path / "test" / "utt2spk").write_text("a s\n")
    with pytest.raises(AudioFault, match=r"test/a\.wav.*No such file"):
        _open(tmp_path, ["test"]).splits["test"][0].load()
    (tmp_path / "test" / "wav.scp").write_text("\n")
    with pytest.raises(UserError, match=r"wav\.scp.*empty"):
        _open(tmp_path, ["test"])
