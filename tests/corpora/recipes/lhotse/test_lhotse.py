"""Manifests that Lhotse itself writes, of shared recordings: what becomes of cuts, splits, speakers and transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpora.audio.io import read_audio
from corpora.frontends.stft import Stft
from corpora.loading.cache import digest
from corpora.loading.sequences import load_sequences
from corpora.registry import check_data, open_corpus
from corpora.settings import CutsSettings
from corpora.settings import DataSettings as Data
from corpora.types import AudioFault, Corpus
from dvae_pyro.errors import UserError

lhotse = pytest.importorskip("lhotse")

FRONTEND = Stft(16000, 512, 256)


@pytest.fixture
def recordings(shared: Path) -> list[Path]:
    """Two recordings of each of seven speakers."""
    root = shared / "corpora/librispeech-mini"
    folders = sorted([*(root / "valid").iterdir(), *(root / "test").iterdir()])
    return [path for folder in folders for path in sorted(folder.glob("*.flac"))[:2]]


def sets(files: Sequence[Path]) -> tuple[Any, Any]:
    """Recordings, and supervisions of their first second and of what follows after 0.5 s."""
    found = [lhotse.Recording.from_file(path) for path in files]
    said = []
    for recording, path in zip(found, files, strict=True):
        for number, (start, duration) in enumerate(((0.0, 1.0), (1.5, recording.duration - 1.5))):
            said.append(
                lhotse.SupervisionSegment(
                    id=f"{recording.id}-{number}",
                    recording_id=recording.id,
                    start=start,
                    duration=duration,
                    text=f"words {number}",
                    speaker=path.parent.name,
                    gender="Female" if path.parent.name < "3" else "M",
                )
            )
    return lhotse.RecordingSet.from_recordings(found), lhotse.SupervisionSet.from_segments(said)


def prepared(folder: Path, files: Sequence[Path], part: str) -> None:
    """What ``lhotse prepare`` leaves."""
    folder.mkdir(exist_ok=True)
    found, said = sets(files)
    found.to_file(folder / f"libri_recordings_{part}.jsonl.gz")
    said.to_file(folder / f"libri_supervisions_{part}.jsonl.gz")


def opened(root: Path | None, needed: Sequence[str], **settings: Any) -> Corpus:
    return open_corpus(Data(corpus="lhotse", root=None if root is None else str(root), **settings), 0, needed)


def test_recordings_and_supervisions_are_utterances(tmp_path: Path, recordings: list[Path]) -> None:
    for part, files in (
        ("train-clean-5", recordings[:6]),
        ("dev-clean-2", recordings[6:10]),
        ("test", recordings[10:]),
    ):
        prepared(tmp_path, files, part)
    corpus = opened(tmp_path, ["train", "valid", "test"])
    assert corpus.layout == (
        "lhotse: libri_recordings_train-clean-5.jsonl.gz to train, libri_recordings_dev-clean-2.jsonl.gz to valid, "
        "libri_recordings_test.jsonl.gz to test; speaker = from the lists (7)"
    )
    assert {split: len(found) for split, found in corpus.splits.items()} == {"train": 12, "valid": 8, "test": 8}
    by_name = {u.file: u for u in corpus.splits["train"]}
    path = recordings[0]
    whole = read_audio(path).samples
    first, second = (by_name[f"{path.stem}-{number}"] for number in (0, 1))
    np.testing.assert_array_equal(first.sound().samples, whole[:16000])
    np.testing.assert_array_equal(second.sound().samples, whole[24000:])
    assert first.speaker == path.parent.name and first.labels == {"text": "words 0", "sex": "f"}
    assert opened(tmp_path, ["valid"]).splits["valid"] == corpus.splits["valid"]
    alone = opened(tmp_path, ["train"])
    assert alone.splits["train"] == corpus.splits["train"]  # valid is there, though nobody asks for it
    assert len(load_sequences(corpus, "valid", FRONTEND, sequence_frames=50)) > 8


def test_a_validation_set_that_is_missing_comes_out_of_training(tmp_path: Path, recordings: list[Path]) -> None:
    prepared(tmp_path, recordings, "train")
    corpus = opened(tmp_path, ["train", "valid"])
    speakers = [{u.speaker for u in corpus.splits[split]} for split in ("train", "valid")]
    assert [len(found) for found in speakers] == [6, 1] and not speakers[0] & speakers[1]
    assert opened(tmp_path, ["train"]).splits["train"] == corpus.splits["train"]
    with pytest.raises(UserError, match=r" test (.|\n)*data\.cuts\.test=FILE"):
        opened(tmp_path, ["test"])


def cuts_of(files: Sequence[Path]) -> Any:
    found, said = sets(files)
    return lhotse.CutSet.from_manifests(recordings=found, supervisions=said)


def test_cuts_are_taken_as_they_are(tmp_path: Path, recordings: list[Path]) -> None:
    """A part, a gap that Lhotse pads, two appended, and the mean of two recordings that overlap."""
    a, b = list(cuts_of(recordings[:1]))[0], list(cuts_of(recordings[2:3]))[0]
    part = a.truncate(offset=0.25, duration=1.0, preserve_id=True)
    gap = b.truncate(duration=1.0).pad(duration=1.5).with_id("gap")
    appended = part.append(b.truncate(duration=1.0)).with_id("appended")
    mixed = part.mix(b.truncate(duration=1.0), snr=10).with_id("mixed")
    lhotse.CutSet.from_cuts([part, gap, appended, mixed]).to_file(tmp_path / "cuts.jsonl.gz")
    corpus = opened(None, ["train"], cuts=CutsSettings(train=str(tmp_path / "cuts.jsonl.gz")))
    u = {utterance.file: utterance for utterance in corpus.splits["train"]}
    x, y = (read_audio(path).samples for path in (recordings[0], recordings[2]))
    np.testing.assert_array_equal(u[str(part.id)].sound().samples, x[4000:20000])
    np.testing.assert_allclose(u["gap"].sound().samples, np.concatenate([y[:16000], 0 * y[:8000]]), atol=1e-7)
    np.testing.assert_allclose(u["appended"].sound().samples, np.concatenate([x[4000:20000], y[:16000]]), atol=1e-7)
    heard = u["mixed"].sound().samples - x[4000:20000]  # so much of y that it is 10 dB below
    assert 10 * np.log10(np.mean(x[4000:20000] ** 2) / np.mean(heard**2)) == pytest.approx(10.0, abs=0.01)
    assert np.corrcoef(heard[:, 0], y[:16000, 0])[0, 1] > 0.999
    assert u["appended"].speaker == f"{recordings[0].parent.name}+{recordings[2].parent.name}"
    assert u["mixed"].labels["domain"] == "noisy" and u["gap"].labels["domain"] == "clean"
    data = Data(corpus="lhotse", cuts=CutsSettings(train=str(tmp_path / "cuts.jsonl.gz")), conditions="B")
    assert [v.file for v in open_corpus(data, 0, ["train"]).splits["train"]] == ["mixed"]


def test_splits_by_field_and_by_seed(tmp_path: Path, recordings: list[Path]) -> None:
    cuts = list(cuts_of(recordings))
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "all.jsonl.gz")
    by_seed = opened(tmp_path / "all.jsonl.gz", ["train", "valid", "test"])
    assert [len({u.speaker for u in by_seed.splits[split]}) for split in by_seed.splits] == [5, 1, 1]
    assert "by seed 0" in by_seed.layout
    for number, cut in enumerate(cuts):
        cut.custom = {"split": ("train", "dev", "test")[number % 3]}
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "fields.jsonl.gz")
    by_field = opened(tmp_path / "fields.jsonl.gz", ["train", "valid", "test"])
    assert [len(found) for found in by_field.splits.values()] == [5, 5, 4]
    assert by_field.layout.startswith("lhotse: field split to train, field split to valid, field split to test")


def test_shards_are_a_corpus_like_any_other(tmp_path: Path, recordings: list[Path]) -> None:
    for part, files in (("train", recordings[:10]), ("dev", recordings[10:])):
        (tmp_path / part).mkdir()
        cuts_of(files).to_shar(str(tmp_path / part), fields={"recording": "flac"}, shard_size=4, verbose=False)
    corpus = opened(tmp_path, ["train", "valid"])
    assert [len(found) for found in corpus.splits.values()] == [10, 4]
    for utterance, path in zip(corpus.splits["train"], recordings, strict=False):
        np.testing.assert_array_equal(utterance.sound().samples, read_audio(path).samples)
        assert utterance.source == ()
    (tmp_path / "train" / "recording.000001.tar").rename(tmp_path / "away.tar")
    with pytest.raises(UserError, match=r"cuts\.000001\.jsonl\.gz .*recording\.000001\.tar"):
        opened(tmp_path, ["train"])
    (tmp_path / "train" / "recording.000000.tar").replace(tmp_path / "train" / "recording.000001.tar")
    (tmp_path / "away.tar").rename(tmp_path / "train" / "recording.000000.tar")
    with pytest.raises(UserError, match=r"cuts\.000000\.jsonl\.gz"):
        opened(tmp_path, ["train"])


def test_no_command_of_a_manifest_is_run(tmp_path: Path, recordings: list[Path]) -> None:
    (cut,) = cuts_of(recordings[:1])
    for source in (
        {"type": "command", "source": f"touch {tmp_path / 'run'}; cat {recordings[0]}"},
        {"type": "file", "source": f"pipe:touch {tmp_path / 'run'}"},
    ):
        (given,) = cut.recording.sources
        given.type, given.source = source["type"], source["source"]
        lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl")
        with pytest.raises(UserError, match="command"):
            opened(None, ["train"], cuts=CutsSettings(train=str(tmp_path / "cuts.jsonl")))
    assert not (tmp_path / "run").exists()


def test_sounds_that_cannot_be_read_are_named(tmp_path: Path, recordings: list[Path]) -> None:
    copy = tmp_path / "a.flac"
    copy.write_bytes(recordings[0].read_bytes())
    cuts_of([copy]).to_file(tmp_path / "cuts.jsonl.gz")
    data = Data(corpus="lhotse", cuts=CutsSettings(train=str(tmp_path / "cuts.jsonl.gz")))
    (utterance,) = open_corpus(data, 0, ["train"]).splits["train"]
    before = digest([utterance], FRONTEND)
    copy.write_bytes(copy.read_bytes()[:20000])
    assert digest([utterance], FRONTEND) != before is not None
    with pytest.raises(AudioFault, match="Lhotse"):
        utterance.load()
    copy.unlink()
    with pytest.raises(AudioFault, match=r"a\.flac.*No such file"):
        utterance.load()


def test_what_is_no_manifest(tmp_path: Path, recordings: list[Path]) -> None:
    with pytest.raises(UserError, match="--root"):
        opened(None, ["train"])
    with pytest.raises(UserError, match=str(tmp_path)):
        opened(tmp_path, ["train"])
    (tmp_path / "cuts.jsonl").write_text("no cuts\n")
    with pytest.raises(UserError, match=r"cuts\.jsonl"):
        opened(tmp_path / "cuts.jsonl", ["train"])
    (tmp_path / "cuts.jsonl").unlink()
    for part in ("one", "two"):
        prepared(tmp_path, recordings[:2], part)
    with pytest.raises(UserError, match=r"libri_recordings_one\.jsonl\.gz"):
        opened(tmp_path, ["train"])
    with pytest.raises(UserError, match=r"data\.cuts\.valid=none\.jsonl"):
        opened(tmp_path, ["valid"], cuts=CutsSettings(valid="none.jsonl"))
    with pytest.raises(UserError, match="data.cuts.train .*corpus 'folder'"):
        check_data(Data(corpus="folder", cuts=CutsSettings(train="a")))


def test_without_lhotse_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lhotse", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[lhotse\]'"):
        opened(None, ["train"])
