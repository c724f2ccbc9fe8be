"""From files to batches: faults by name, reports, cutting, padding, and each sequence once per epoch."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpora.frontends.stft import Stft
from corpora.loading.sequences import Batches, Prepared, collate, load_sequences, load_split
from corpora.recipes.folder import open_folder
from corpora.types import AudioFault, Corpus, Sound, Utterance
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.support.faults import FAULTS

FRONTEND = Stft(16000, 512, 256)


def _give(sound: Sound) -> Sound:
    return sound


def _corpus(sounds: dict[str, Sound]) -> Corpus:
    utterances = [Utterance(name, name, functools.partial(_give, sound)) for name, sound in sounds.items()]
    return Corpus("made", "", {"train": utterances})


def _sound(frames: int, rate: int = 16000, channels: int = 1) -> Sound:
    """Noise that makes so many frames at 16 kHz."""
    count = round((frames - 1) * 256 * rate / 16000)
    return Sound(np.random.RandomState(frames).standard_normal((count, channels)), rate)


def test_sequences_can_keep_their_utterance() -> None:
    """The same sequences, as views of all frames of the utterance, the rest that fills none of them included."""
    corpus = _corpus({"a": _sound(35), "b": _sound(7)})
    plain, movable = (
        load_sequences(corpus, "train", FRONTEND, sequence_frames=10, short="keep", movable=movable)
        for movable in (False, True)
    )
    assert [(item.file, item.start, len(item.x)) for item in movable] == [
        ("a", 0, 10),
        ("a", 10, 10),
        ("a", 20, 10),
        ("b", 0, 7),
    ]
    for one, other in zip(plain, movable, strict=True):
        assert one.whole is None and torch.equal(one.x, other.x) and other.whole is not None
        assert len(other.whole) == (35 if other.file == "a" else 7)
        assert other.x.data_ptr() == other.whole[other.start :].data_ptr()


def test_librispeech_gives_the_counts_of_its_readme(shared: Path) -> None:
    data = Data(corpus="folder", root=str(shared / "corpora/librispeech-mini"))
    corpus = open_folder(data, 0)
    for split, sequences, short in [("valid", 67, 3), ("test", 103, 6)]:
        lines: list[str] = []
        found = load_sequences(corpus, split, FRONTEND, sequence_frames=150, report=lines.append)
        assert len(found) == sequences
        assert any(f"left out {short} of" in line and "data.sequence_frames" in line for line in lines)
        assert all(item.x.shape == (150, 257) and item.x.dtype == torch.float32 for item in found)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_each_fault_is_refused_or_skipped_by_name(shared: Path, tmp_path: Path, name: str, on_error: str) -> None:
    (tmp_path / "train").mkdir()
    shutil.copy(shared / "corpora/faults" / name, tmp_path / "train" / name)
    shutil.copy(shared / "corpora/faults/mixed_rate/a/ok_16k.flac", tmp_path / "train")
    corpus = open_folder(Data(corpus="folder", root=str(tmp_path)), 0, ["train"])
    lines: list[str] = []

    def read() -> list[Prepared]:
        return load_sequences(corpus, "train", FRONTEND, sequence_frames=20, on_error=on_error, report=lines.append)

    if on_error == "error":
        with pytest.raises(UserError, match=f"train/{name} .*{FAULTS[name]}(.|\n)*data.on_error=skip") as caught:
            read()
        assert not isinstance(caught.value, AudioFault)
    else:
        assert {item.file for item in read()} == {"train/ok_16k.flac"}
        skipped = [line for line in lines if "skipped 1 broken of 2 files" in line]
        assert len(skipped) == 1 and f"train/{name} (" in skipped[0]


def test_a_folder_of_faults_leaves_what_is_good(shared: Path) -> None:
    root = shared / "corpora/faults"
    names = [*FAULTS, "stereo.flac", "mixed_rate/a/other_8k.flac", "parole_été_Ω_音声.flac"]
    everything = open_folder(Data(corpus="folder", root=str(root)), 0)
    utterances = [u for split in everything.splits.values() for u in split if u.file in names]
    lines: list[str] = []
    found = load_sequences(
        Corpus("folder", str(root), {"train": utterances}),
        "train",
        FRONTEND,
        sequence_frames=50,
        on_error="skip",
        report=lines.append,
    )
    assert {item.file for item in found} == set(names) - set(FAULTS)
    assert all(torch.isfinite(item.x).all() and (item.x > 0).all() for item in found)
    text = "\n".join(lines)
    assert f"skipped {len(FAULTS)} broken of {len(names)} files" in text
    assert "resampled 1 of 18 files to 16000 Hz (1 from 8000 Hz)" in text
    assert "mixed 1 of 18 files from several channels to mono" in text


def test_blocks_are_those_of_the_whole_utterance() -> None:
    sound = _sound(101)
    whole = torch.from_numpy(FRONTEND.features(FRONTEND.prepare(sound)))
    found = load_sequences(_corpus({"a": sound}), "train", FRONTEND, sequence_frames=30)
    assert [item.start for item in found] == [0, 30, 60]
    for item in found:
        assert torch.equal(item.x, whole[item.start : item.start + 30])
        assert item.x.untyped_storage().nbytes() == item.x.nbytes
    (alone,) = load_sequences(_corpus({"a": sound}), "train", FRONTEND, sequence_frames=None)
    assert torch.equal(alone.x, whole)


def test_reports_rates_channels_and_short_utterances_once() -> None:
    sounds = {
        "a": _sound(60),
        "b": _sound(20),
        "c": _sound(50, 8000),
        "d": _sound(50, 44100, 2),
        "e": _sound(9),
    }
    lines: list[str] = []
    load_sequences(_corpus(sounds), "train", FRONTEND, sequence_frames=40, report=lines.append)
    assert len(lines) == 4
    assert lines[0].endswith("resampled 2 of 5 files to 16000 Hz (1 from 8000 Hz, 1 from 44100 Hz)")
    assert "mixed 1 of 5 files" in lines[1]
    assert "left out 2 of 5 files" in lines[2] and lines[2].endswith("b (20), e (9)")
    assert lines[3].endswith("3 sequences, 120 frames, 3 speakers")


def test_short_utterances_are_kept_where_asked_for() -> None:
    sounds = {"a": _sound(60), "b": _sound(20), "c": _sound(9)}
    lines: list[str] = []
    found = load_sequences(_corpus(sounds), "train", FRONTEND, sequence_frames=20, short="keep", report=lines.append)
    assert [(item.file, len(item.x), item.start) for item in found] == [
        *(("a", 20, start) for start in (0, 20, 40)),
        ("b", 20, 0),
        ("c", 9, 0),
    ]
    assert lines[0] == "train: 1 of 3 files are shorter than a sequence of 20 frames"
    whole = torch.from_numpy(FRONTEND.features(FRONTEND.prepare(sounds["c"])))
    assert torch.equal(found[-1].x, whole)
    with pytest.raises(UserError, match=r"data\.short_utterances.*'kepp'.*'keep'"):
        load_sequences(_corpus(sounds), "train", FRONTEND, sequence_frames=20, short="kepp")


def test_nothing_left_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r" 1 shorter .* 150 .*\n.*data\.sequence_frames"):
        load_sequences(_corpus({"a": _sound(60)}), "train", FRONTEND, sequence_frames=150)
    silence = Sound(np.zeros((9000, 1)), 16000)
    with pytest.raises(UserError, match="1 broken"):
        load_sequences(_corpus({"a": silence}), "train", FRONTEND, sequence_frames=10, on_error="skip")
    with pytest.raises(UserError, match="'train'"):
        load_sequences(_corpus({}), "train", FRONTEND, sequence_frames=10)


def test_settings_out_of_range() -> None:
    corpus = _corpus({"a": _sound(60)})
    with pytest.raises(UserError, match=r"data\.on_error.*'skipp'.*'skip'"):
        load_sequences(corpus, "train", FRONTEND, sequence_frames=10, on_error="skipp")
    with pytest.raises(UserError, match=r"data\.sequence_frames.* 0\b"):
        load_sequences(corpus, "train", FRONTEND, sequence_frames=0)
    with pytest.raises(UserError, match=r"train\.batch_size.* 0\b"):
        Batches([], 0)


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", _sound(20).samples * 0.1, 16000)
    load_sequences(_corpus({"a": _sound(60)}), "train", FRONTEND, sequence_frames=10, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "reading train" in shown.err


def _items(lengths: Sequence[int]) -> list[Prepared]:
    return [Prepared(torch.full((t, 3), float(n + 1)), f"f{n}", "s", 0) for n, t in enumerate(lengths)]


def test_collate_pads_with_zeros() -> None:
    items = _items([4, 2, 5])
    batch = collate(items)
    assert batch.x.shape == (5, 3, 3) and batch.lengths.tolist() == [4, 2, 5] and batch.items == tuple(items)
    for n, item in enumerate(items):
        assert torch.equal(batch.x[: len(item.x), n], item.x)
        assert (batch.x[len(item.x) :, n] == 0).all()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("bucket", [True, False])
def test_an_epoch_holds_every_sequence_once(shuffle: bool, bucket: bool) -> None:
    lengths = torch.randint(1, 500, (103,)).tolist()
    batches = Batches(_items(lengths), 8, seed=3, shuffle=shuffle, bucket=bucket)
    epochs = [batches.epoch(e) for e in range(4)]
    for epoch in epochs:
        assert len(epoch) == len(batches) == 13
        assert sorted(sum(epoch, [])) == list(range(103))
        assert sorted(map(len, epoch)) == [7] + [8] * 12
    again = Batches(_items(lengths), 8, seed=3, shuffle=shuffle, bucket=bucket)
    assert again.epoch(2) == epochs[2]
    if shuffle:
        assert epochs[0] != epochs[1]
        assert Batches(_items(lengths), 8, seed=4, shuffle=shuffle, bucket=bucket).epoch(0) != epochs[0]
        together = {frozenset(batch) for batch in epochs[0]} & {frozenset(batch) for batch in epochs[1]}
        assert len(together) <= 2
    else:
        assert epochs[0] == epochs[1]
    if not shuffle and not bucket:
        assert epochs[0][0] == list(range(8))


def test_buckets_hold_similar_lengths() -> None:
    lengths = torch.randint(50, 500, (400,)).tolist()

    def padding(bucket: bool) -> float:
        batches = Batches(_items(lengths), 16, bucket=bucket).epoch(0)
        padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
        return float(padded / sum(lengths) - 1)

    assert padding(bucket=True) < 0.12 < 0.4 < padding(bucket=False)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    Batches(_items([3, 4, 5]), 2).epoch(0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_split_is_read_as_the_settings_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").mkdir()
    for name, frames in (("long", 50), ("short", 10)):
        soundfile.write(tmp_path / "train" / f"{name}.wav", 0.1 * _sound(frames).samples, 16000)
    (tmp_path / "train" / "broken.wav").write_bytes(b"no sound")
    cache = tmp_path / "cache"
    of_data = {"corpus": "folder", "root": str(tmp_path), "sequence_frames": 20, "trim_db": None}

    def read(cut: bool = False, progress: bool = True, **more: str) -> list[tuple[str, int]]:
        data = Data(**of_data, **more)  # type: ignore[arg-type]  # of several types
        corpus = open_folder(data, 0, ["train"])
        found = load_split(corpus, "train", FRONTEND, data, lines.append, cut=cut, progress=progress)
        return sorted((Path(item.file).stem, len(item.x)) for item in found)

    lines: list[str] = []
    with pytest.raises(UserError, match="broken.wav"):
        read()
    assert read(on_error="skip") == [("long", 50), ("short", 10)]
    assert "reading train" in capsys.readouterr().err
    assert read(on_error="skip", short_utterances="drop", cut=True, progress=False) == [("long", 20), ("long", 20)]
    assert "reading train" not in capsys.readouterr().err
    assert not cache.exists()
    assert read(on_error="skip", short_utterances="keep", cut=True, cache=str(cache)) == [
        ("long", 20),
        ("long", 20),
        ("short", 10),
    ]
    assert list(cache.iterdir()) and any("broken" in line for line in lines)
