"""TIMIT's layout, in small: halves, dialects, SPHERE files, phones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.recipes.timit import CORE_TEST, DEVELOPMENT, Phone, folded
from corpora.registry import open_corpus
from corpora.types import SPLITS, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.sounds import RATE
from tests.support.sphere import SAMPLES, sphere

PHN = "0 3050 h#\n3050 4559 sh\n4559 5723 ix\n"


def _tree(root: Path, files: Sequence[str]) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".WAV.wav"):
            soundfile.write(path, SAMPLES, RATE)
        elif file.lower().endswith(".phn"):
            path.write_text(PHN)
        else:
            path.write_bytes(sphere())
    return root


def _open(root: Path, needed: Sequence[str] = SPLITS, part: str | None = None) -> Corpus:
    return open_corpus(Data(corpus="timit", root=str(root), subset=part), 0, needed)


def test_lists_are_those_of_the_corpus() -> None:
    assert len(set(CORE_TEST)) == 24 and len(set(DEVELOPMENT)) == 50 and not set(CORE_TEST) & set(DEVELOPMENT)
    assert sum(name[0] == "f" for name in CORE_TEST) == 8  # a woman and two men of each dialect
    assert 24 * 8 * (24 * 8 - 1) // 2 == 18_336  # the pairs of Hsu, Zhang & Glass (2017), appendix F


@pytest.mark.parametrize("upper", [True, False])
def test_splits_speakers_and_phones(tmp_path: Path, upper: bool) -> None:
    files = [
        "timit/TRAIN/DR1/FCJF0/SX217.WAV",
        "timit/TRAIN/DR1/FCJF0/SX217.PHN",
        "timit/TRAIN/DR1/FCJF0/SA1.WAV",
        "timit/TEST/DR1/FAKS0/SX223.WAV",
        "timit/TEST/DR2/MWEW0/SI731.WAV",
        "timit/TEST/DR2/MWEW0/SI731.PHN",
        "timit/TEST/DR3/MTHC0/SX15.WAV",
        "timit/TEST/DR4/MBNS0/SX140.WAV",
        "timit/TEST/DR4/FDMS0/SA2.WAV",
        "timit/TEST/DR8/MRES0/SI1217.WAV",
    ]
    root = _tree(tmp_path, files if upper else [file.lower() for file in files])
    corpus = _open(root)
    assert all(u.source == (root / u.file,) for found in corpus.splits.values() for u in found)
    found = {split: [(u.file.lower(), u.speaker) for u in utterances] for split, utterances in corpus.splits.items()}
    assert found == {
        "train": [("timit/train/dr1/fcjf0/sx217.wav", "fcjf0")],
        "valid": [
            ("timit/test/dr1/faks0/sx223.wav", "faks0"),
            ("timit/test/dr3/mthc0/sx15.wav", "mthc0"),
            ("timit/test/dr4/mbns0/sx140.wav", "mbns0"),
        ],
        "test": [("timit/test/dr2/mwew0/si731.wav", "mwew0")],
    }
    labels = corpus.splits["test"][0].labels
    assert labels == {
        "sex": "m",
        "dialect": "dr2",
        "content": [("h#", 0, 3050), ("sh", 3050, 4559), ("ix", 4559, 5723)],
        "transcript": ["sil", "sh", "ih"],
    }
    assert "content" not in corpus.splits["valid"][0].labels
    assert "left out 1 sentences SA1 and SA2" in corpus.notes["train"][0]
    assert corpus.notes["test"] == ["1 speakers, expected 24 for the complete TIMIT"]
    assert any("3 of 3 sentences have no .PHN" in note for note in corpus.notes["valid"])
    kept = _open(root, ["train"], "with_sa").splits["train"]
    assert [u.file.lower()[-9:] for u in kept] == ["0/sa1.wav", "sx217.wav"]


def test_sphere_and_converted_files_are_read(tmp_path: Path) -> None:
    folder = "data/TEST/DR1/MDAB0"
    root = _tree(tmp_path, [f"{folder}/SI1039.WAV", f"{folder}/SI1039.WAV.wav", f"{folder}/SX49.WAV"])
    (root / folder / "SI1039.WAV").write_bytes(b"compressed")
    data = Data(corpus="timit", root=str(root))
    a, b = load_sequences(_open(root, ["test"]), "test", open_frontend(data, 257), sequence_frames=None)
    assert (a.file, b.file) == (f"{folder}/SI1039.WAV.wav", f"{folder}/SX49.WAV")
    assert np.array_equal(a.x, b.x) and a.speaker == b.speaker == "mdab0"


def test_what_is_no_timit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TRAIN .* train"):
        _open(tmp_path)
    _tree(tmp_path, ["TEST/DR1/FAKS0/SX223.WAV"])
    with pytest.raises(UserError, match=r" 24 .* test.* fdhc0.*TEST"):
        _open(tmp_path, ["test"])
    with pytest.raises(UserError, match="TEST"):
        _open(tmp_path / "TEST", ["test"])
    with pytest.raises(UserError, match=r"data.subset=core: .*with_sa"):
        _open(tmp_path, ["test"], "core")
    _tree(tmp_path, ["TEST/DR1/MDAB0/SX49.WAV", "TEST/DR1/MDAB0/SX49.PHN"])
    (tmp_path / "TEST/DR1/MDAB0/SX49.PHN").write_text("0 3050 h#\n3050 sh\n")
    with pytest.raises(UserError, match=r"SX49\.PHN, line 2: .*'3050 sh'"):
        _open(tmp_path, ["test"])
    _tree(tmp_path, ["TRAIN/clips/one.wav"])
    with pytest.raises(UserError, match=r"clips/one\.wav .*'clips'"):
        _open(tmp_path, ["train"])


def test_61_phones_are_counted_as_39() -> None:
    vowels = "iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h".split()
    stops = "b d g p t k dx q bcl dcl gcl pcl tcl kcl".split()
    others = "jh ch s sh z zh f th v dh m n ng em en eng nx l r w y hh hv el pau epi h#".split()
    assert len({*vowels, *stops, *others}) == 61
    phones = [Phone(name, 0, 1) for name in (*vowels, *stops, *others)]
    assert len(set(folded(phones))) == 39 and len(folded(phones)) == 60
