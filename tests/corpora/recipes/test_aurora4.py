"""Aurora-4's layout, in small: lists, conditions, samples without header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.recipes.aurora4 import LISTS, condition_of, read_raw
from corpora.registry import open_corpus
from corpora.types import SPLITS, AudioFault, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.sounds import RATE
from tests.support.sphere import SAMPLES, sphere


def _put(root: Path, file: str) -> str:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(SAMPLES.astype(">i2").tobytes())
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two speakers with two sentences in all conditions, as on the discs, whose lists leave out the first folder."""
    (tmp_path / "lists").mkdir()
    sentences = ["440c0201", "440c0202", "441c0201", "441c0202"]
    for part, stem in (("dev", "dev0330"), ("test", "test0330")):
        for number, name in enumerate(LISTS[part], start=1):
            files = [f"{stem}_{number:02}/{s[:3]}/{s}.wv{1 + (number > 7)}" for s in sentences]
            for file in files:
                _put(tmp_path, f"disc/{file}")
            (tmp_path / "lists" / name).write_text("\n".join(files) + "\n")
    for part, endings in (("multi", "12"), ("clean", "11")):
        files = [_put(tmp_path, f"{part}_16k/011/011c020{i}.wv{e}") for i, e in enumerate(endings)]
        (tmp_path / "lists" / LISTS[part][0]).write_text("".join(f"{file}\n" for file in files))
    return tmp_path


def _open(root: Path, needed: Sequence[str] = SPLITS, part: str | None = None) -> Corpus:
    return open_corpus(Data(corpus="aurora4", root=str(root), subset=part), 0, needed)


def test_splits_and_conditions(root: Path) -> None:
    corpus = _open(root)
    assert all(u.source == (root / u.file,) for found in corpus.splits.values() for u in found)
    assert [(u.file, u.speaker, u.labels) for u in corpus.splits["train"]] == [
        ("multi_16k/011/011c0200.wv1", "011", {"microphone": 1}),
        ("multi_16k/011/011c0201.wv2", "011", {"microphone": 2}),
    ]
    for split in ("valid", "test"):
        found = corpus.splits[split]
        assert len(found) == 56 and len({u.file for u in found}) == 56
        assert Counter(u.labels["domain"] for u in found) == {
            "clean": 4,
            "noisy": 24,
            "channel": 4,
            "noisy+channel": 24,
        }
        for u in found:
            number = int(u.file.split("_")[1][:2])
            assert u.labels == condition_of(number) and u.file.startswith("disc/") and u.speaker in ("440", "441")
    assert [u.file for u in _open(root, ["train"], "clean").splits["train"]][0].startswith("clean_16k/")
    assert {u.labels["domain"] for u in _open(root, ["train"], "clean").splits["train"]} == {"clean"}
    assert all("domain" not in u.labels for u in _open(root, ["train"], "multi").splits["train"])


def test_the_development_set_can_train(root: Path) -> None:
    splits = _open(root, part="dev").splits
    said = {split: {u.file.rpartition("/")[2][:8] for u in splits[split]} for split in SPLITS}
    assert len(said["train"]) == 3 and len(said["valid"]) == 1 and not said["train"] & said["valid"]
    assert len(splits["train"]) == 42 and len(splits["valid"]) == 14 and len(splits["test"]) == 56


def test_the_letters_are_those_of_the_sets() -> None:
    assert "".join(str(condition_of(number)["condition"]) for number in range(1, 15)) == "ABBBBBBCDDDDDD"
    assert [condition_of(number)["noise"] for number in (1, 2, 7, 8, 14)] == ["clean", "car", "train", "clean", "train"]


def test_samples_with_and_without_header(tmp_path: Path) -> None:
    sound = read_raw(tmp_path / _put(tmp_path, "a.wv1"))
    assert sound.rate == RATE and np.array_equal(sound.samples[:, 0] * 32768, SAMPLES)
    (tmp_path / "b.wv1").write_bytes(sphere())
    soundfile.write(tmp_path / "c.wav", SAMPLES, RATE)
    for name in ("b.wv1", "c.wav"):
        assert np.array_equal(read_raw(tmp_path / name).samples, sound.samples)
    (tmp_path / "d.wv1").write_bytes(b"123456789")
    with pytest.raises(AudioFault, match=r"d\.wv1.* 9 bytes"):
        read_raw(tmp_path / "d.wv1")
    with pytest.raises(AudioFault, match=r"e\.wv1.*No such file"):
        read_raw(tmp_path / "e.wv1")
    (tmp_path / "f.wv1").write_bytes(b"")
    with pytest.raises(AudioFault, match=r"f\.wv1.*empty"):
        read_raw(tmp_path / "f.wv1")


def test_converted_files_are_taken_and_what_is_missing_is_named(root: Path) -> None:
    file = root / "multi_16k/011/011c0200.wv1"
    soundfile.write(file.with_suffix(".wav"), SAMPLES, RATE)
    assert _open(root, ["train"]).splits["train"][0].file == "multi_16k/011/011c0200.wav"
    _put(root, "copy/multi_16k/011/011c0201.wv2")
    with pytest.raises(UserError, match=r"multi_16k/011/011c0201\.wv2.* 2 files"):
        _open(root, ["train"])
    (root / "copy/multi_16k/011/011c0201.wv2").unlink()
    (root / "multi_16k/011/011c0201.wv2").unlink()
    with pytest.raises(UserError, match=r" 2 files, 1 .*multi_16k/011/011c0201\.wv2"):
        _open(root, ["train"])
    (root / "lists" / LISTS["multi"][0]).unlink()
    with pytest.raises(UserError, match=r"training_multicondition_16k\.list"):
        _open(root, ["train"])
    with pytest.raises(UserError, match=r"data\.subset=claen.*multi, clean, dev"):
        _open(root, ["train"], "claen")
