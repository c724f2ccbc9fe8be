"""Shards of a corpus: the same sounds, speakers and labels, in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.registry import open_corpus
from corpora.settings import CutsSettings
from corpora.settings import DataSettings as Data
from corpora.shard import main

pytest.importorskip("lhotse")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve recordings of stereo and mono, of two rates, for training, and two to validate."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("dev", 2)):
        for n in range(count):
            path = tmp_path / "corpus" / split / f"s{n % 5}" / f"{n}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = 0.1 * noise.standard_normal((3000 + 100 * n, 1 + n % 2))
            soundfile.write(path, samples, 16000 if n % 3 else 8000)
    return tmp_path / "corpus"


def test_shards_hold_the_corpus(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    assert main(["--corpus", "folder", "--root", str(root), "--out", str(out), "--size", "5"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"{out / 'train'}: 12 utterances, 0.00 h, 3 shards" in said and "test: the corpus has no such split" in said
    plain = open_corpus(Data(corpus="folder", root=str(root)), 0, ["train", "valid"])
    found = open_corpus(Data(corpus="lhotse", root=str(out)), 0, ["train", "valid"])
    for split in ("train", "valid"):
        by_name = {u.file: u for u in found.splits[split]}
        assert set(by_name) == {u.file for u in plain.splits[split]}
        for utterance in plain.splits[split]:
            other = by_name[utterance.file]
            assert other.speaker == utterance.speaker and other.sound().rate == utterance.sound().rate
            np.testing.assert_array_equal(other.sound().samples, utterance.sound().samples)
    order = [u.file for u in found.splits["train"]]
    assert order != sorted(order)


def test_what_is_said_goes_along(tmp_path: Path) -> None:
    out = tmp_path / "shards"
    assert main(["--corpus", "synthetic", "--out", str(out), "--split", "valid", "data.seed=3"]) == 0
    plain = {u.file: u for u in open_corpus(Data(seed=3), 3, ["valid"]).splits["valid"]}
    found = open_corpus(Data(corpus="lhotse", cuts=CutsSettings(valid=str(out / "valid"))), 0, ["valid"]).splits[
        "valid"
    ]
    assert {u.file for u in found} == set(plain) and all(u.speaker == plain[u.file].speaker for u in found)
    assert all(u.labels.get("sex") == plain[u.file].labels.get("sex") for u in found)


def test_mistakes_leave_nothing_behind(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    arguments = ["--corpus", "folder", "--root", str(root), "--out", str(out), "--split", "train"]
    broken = next((root / "train").rglob("3.wav"))
    broken.write_bytes(broken.read_bytes()[:3000])
    assert main(arguments) == 2
    assert "3.wav: it is cut short" in capsys.readouterr().err and not list(out.iterdir())
    assert main([*arguments, "data.on_error=skip"]) == 0
    assert "11 utterances" in (said := capsys.readouterr().out) and "skipped 1 broken: train/s3/3.wav" in said
    assert main(arguments) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*arguments[:-1], "valid", "layout=none"]) == 2
    assert "expected data.KEY=VALUE" in capsys.readouterr().err
    assert main([*arguments[:-1], "valid", "data.layuot=none"]) == 2
    assert "layuot" in capsys.readouterr().err
    assert main(["--corpus", "folder", "--root", str(tmp_path / "nowhere"), "--out", str(tmp_path / "other")]) == 2
    assert "no folder" in capsys.readouterr().err
