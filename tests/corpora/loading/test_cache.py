"""Features on the disk: the same numbers and words as without, never out of date, whole or not there."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from corpora.audio.io import read_audio
from corpora.frontends.base import PassFrames
from corpora.frontends.stft import Stft
from corpora.loading.cache import Reading, cached_readings, digest, read
from corpora.loading.sequences import Prepared, load_sequences
from corpora.recipes.folder import open_folder
from corpora.registry import open_corpus
from corpora.types import Corpus, Frames, Sound, Utterance
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.support.faults import FAULTS

FRONTEND = Stft(16000, 64, 32, trim_db=None)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three files of noise, of 101, 64 and 33 frames."""
    noise, utterances = np.random.default_rng(0), []
    (tmp_path / "sound").mkdir()
    for name, frames in (("a", 101), ("b", 64), ("c", 33)):
        path = tmp_path / "sound" / f"{name}.wav"
        soundfile.write(path, 0.1 * noise.standard_normal((frames - 1) * 32), 16000)
        utterances.append(Utterance(path.name, name, functools.partial(read_audio, path), source=(path,)))
    return Corpus("made", "", {"train": utterances})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(
    corpus: Corpus, cache: Path | None, frontend: Any = FRONTEND, frames: int | None = 30
) -> tuple[list[Prepared], list[str]]:
    lines: list[str] = []
    found = load_sequences(
        corpus,
        "train",
        frontend,
        sequence_frames=frames,
        on_error="skip",
        report=lines.append,
        cache=None if cache is None else str(cache),
    )
    return found, lines


def same(a: list[Prepared], b: list[Prepared]) -> bool:
    return [i[1:] for i in a] == [i[1:] for i in b] and all(torch.equal(i.x, j.x) for i, j in zip(a, b, strict=True))


def unread(corpus: Corpus) -> Corpus:
    """The corpus, none of whose files may be read."""

    def fail() -> Sound:
        raise AssertionError("read again")

    return Corpus(corpus.name, "", {"train": [replace(u, load=fail) for u in corpus.splits["train"]]})


@pytest.mark.parametrize("frames", [30, None])
def test_kept_features_are_those_that_are_computed(shared: Path, cache: Path, frames: int | None) -> None:
    faults = shared / "corpora/faults"
    names = [*FAULTS, "stereo.flac", "mixed_rate/a/other_8k.flac", "mixed_rate/a/ok_16k.flac"]
    every = open_folder(Data(corpus="folder", root=str(faults)), 0)
    chosen = [u for split in every.splits.values() for u in split if u.file in names]
    corpus, frontend = Corpus("folder", str(faults), {"train": chosen}), Stft(16000, 512, 256)
    plain, said = load(corpus, None, frontend, frames)
    first, said_first = load(corpus, cache, frontend, frames)
    again, said_again = load(unread(corpus), cache, frontend, frames)
    assert same(plain, first) and same(plain, again)
    assert said_first[0].startswith("folder-train: features cached in") and said_first[1:] == said
    assert said_again[0].startswith("folder-train: features read from") and said_again[1:] == said
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
    with pytest.raises(UserError, match=rf"({'|'.join(FAULTS)}) (.|\n)*data\.on_error=skip"):
        load_sequences(unread(corpus), "train", frontend, sequence_frames=frames, cache=str(cache))


def test_training_cannot_change_what_is_kept(corpus: Corpus, cache: Path) -> None:
    load(corpus, cache)
    mapped, _ = load(corpus, cache)
    before = mapped[0].x.clone()
    mapped[0].x.zero_()
    assert torch.equal(load(unread(corpus), cache)[0][0].x, before)


def test_corpora_that_are_not_files_say_what_they_are_made_from(shared: Path) -> None:
    music = Data(
        corpus="polyphonic", root=str(shared / "corpora/polyphonic-music"), subset="JSB_Chorales", frontend="frames"
    )
    pens = [
        Data(corpus="strokes", root=str(shared / "corpora/omniglot-strokes"), frontend="frames", dequantise=noise)
        for noise in ("all", None)
    ]
    assert len({digest(open_corpus(data, 0, ["valid"]).splits["valid"], PassFrames(3)) for data in pens}) == 2
    for data, frontend in (
        (Data(), FRONTEND),
        (Data(seed=1), FRONTEND),
        (music, PassFrames(88)),
        (pens[0], PassFrames(3)),
    ):
        utterances = open_corpus(data, data.seed, ["valid"]).splits["valid"]
        assert len({repr(u.source) for u in utterances}) == len(utterances)
        again = open_corpus(data, data.seed, ["valid"]).splits["valid"]
        assert digest(utterances, frontend) == digest(again, frontend) is not None
    assert digest(open_corpus(Data(), 0).splits["valid"], FRONTEND) != digest(
        open_corpus(Data(), 1).splits["valid"], FRONTEND
    )


def test_a_corpus_that_does_not_say_is_computed_every_time(corpus: Corpus, cache: Path) -> None:
    silent = Corpus("made", "", {"train": [replace(u, source=()) for u in corpus.splits["train"]]})
    found, said = load(silent, cache)
    assert same(found, load(corpus, None)[0]) and "not cached" in said[0] and not cache.exists()


@pytest.mark.parametrize("change", ["samples", "time", "front end", "fewer", "order", "code"])
def test_what_has_changed_is_computed_anew(
    corpus: Corpus, cache: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(corpus, cache)
    utterances, frontend = corpus.splits["train"], FRONTEND
    (path,) = utterances[1].source
    assert isinstance(path, Path)
    if change == "samples":
        status = path.stat()
        soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(64 * 32), 16000)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(0, 0))
    elif change == "front end":
        frontend = Stft(16000, 64, 16, trim_db=None)
    elif change == "code":
        monkeypatch.setattr("corpora.loading.cache.version", lambda name: "another")
    else:
        utterances = utterances[:2] if change == "fewer" else utterances[::-1]
    changed = Corpus("made", "", {"train": utterances})
    found, said = load(changed, cache, frontend)
    assert same(found, load(changed, None, frontend)[0])
    assert "features cached in" in said[0] and len(list(cache.iterdir())) == 4


def _flip(place: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return damage


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut": (".npy", lambda path: path.write_bytes(path.read_bytes()[:-500])),
    "cut in front": (".npy", lambda path: path.write_bytes(path.read_bytes()[4:])),
    "first value": (".npy", _flip(128)),
    "last value": (".npy", _flip(-1)),
    "shape": (".npy", lambda path: path.write_bytes(path.read_bytes().replace(b"(198, 33)", b"(33, 198)"))),
    "type": (".npy", lambda path: path.write_bytes(path.read_bytes().replace(b"<f4", b"<i4"))),
    "order": (".npy", lambda path: path.write_bytes(path.read_bytes().replace(b": False", b": True "))),
    "magic": (".npy", _flip(0)),
    "empty": (".npy", lambda path: path.write_bytes(b"")),
    "foreign": (".npy", lambda path: path.write_text("once upon a time there was another file of this name")),
    "index cut": (".json", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "index changed": (".json", lambda path: path.write_bytes(path.read_bytes().replace(b"16000", b"16001"))),
    "index foreign": (".json", lambda path: path.write_text("[1, 2]")),
    "index empty": (".json", lambda path: path.write_bytes(b"")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_known_and_computed_anew(corpus: Corpus, cache: Path, damage: str) -> None:
    load(corpus, cache)
    suffix, change = DAMAGES[damage]
    (path,) = cache.glob(f"*{suffix}")
    whole = path.read_bytes()
    change(path)
    assert path.read_bytes() != whole
    found, said = load(corpus, cache)
    assert said[0].startswith(str(path.with_suffix(".npy"))) and "computed again" in said[0]
    assert same(found, load(corpus, None)[0]) and path.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_one_of_the_files_alone_is_nothing(corpus: Corpus, cache: Path, suffix: str) -> None:
    load(corpus, cache)
    (path,) = cache.glob(f"*{suffix}")
    path.unlink()
    found, said = load(corpus, cache)
    assert "features cached in" in said[0] and same(found, load(corpus, None)[0]) and path.exists()


def test_the_frames_are_an_array_that_numpy_reads(corpus: Corpus, cache: Path) -> None:
    plain = load(corpus, cache, frames=None)[0]
    (path,) = cache.glob("*.npy")
    np.testing.assert_array_equal(np.load(path), np.concatenate([item.x.numpy() for item in plain]))


def test_users_share_a_cache_by_the_umask(corpus: Corpus, cache: Path) -> None:
    before = os.umask(0o022)
    try:
        load(corpus, cache)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o644}


def test_an_interruption_leaves_nothing_behind(corpus: Corpus, cache: Path) -> None:
    def interrupted() -> Iterator[Reading]:
        yield read(corpus.splits["train"][0], FRONTEND)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_readings(cache, "made-train", corpus.splits["train"], FRONTEND, interrupted(), print)
    assert not list(cache.iterdir())
    load(corpus, cache)
    path, index = sorted(cache.iterdir(), reverse=True)
    abandoned, recent = (path.with_name(f"{path.stem}.{name}.tmp") for name in ("old", "new"))
    for left in (abandoned, recent):
        left.mkdir()
        (left / path.name).touch()
    os.utime(abandoned, (0, 0))
    path.unlink()
    load(corpus, cache)
    assert set(cache.iterdir()) == {path, index, recent}


def test_a_folder_that_cannot_be_written_is_named(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/cache.*\n?.*data\.cache"):
        load(corpus, tmp_path / "file" / "cache")


def give(frames: int) -> Frames:
    return Frames(np.full((frames, 3), frames, np.float32))


def test_frames_and_nothing_at_all_can_be_kept(cache: Path) -> None:
    some, none = [
        Corpus("made", "", {"train": [Utterance(f"{t}", "", functools.partial(give, t), source=(t,)) for t in frames]})
        for frames in ((2, 5), (0,))
    ]
    for _ in range(2):
        assert same(load(some, cache, PassFrames(3), None)[0], load(some, None, PassFrames(3), None)[0])
        with pytest.raises(UserError, match="1 broken"):
            load(none, cache, PassFrames(3), None)


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from corpora.loading.cache import Reading, cached_readings
from corpora.registry import Utterance
from corpora.frontends.base import PassFrames

def computed():
    for k in range(60):
        if k == 30:
            print("begun", flush=True)
            sys.stdin.readline()
        yield Reading(np.full((100 + k, 3), k, np.float32))

utterances = [Utterance(str(k), "", None, source=(k,)) for k in range(60)]
found = cached_readings(Path(sys.argv[1]), "made", utterances, PassFrames(3), computed(), lambda line: None)
print([len(r.features) for r in found], sum(float(r.features.sum()) for r in found))
"""


def test_two_processes_at_once_and_one_that_is_killed(cache: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(cache)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    ends = [process.communicate("go on\n")[0].splitlines()[-1:] for process in processes]
    expected = f"{[100 + k for k in range(60)]} {float(sum(3 * k * (100 + k) for k in range(60)))}"
    assert ends[0] != [expected] and ends[1:] == [[expected], [expected]]
    whole = [path for path in cache.iterdir() if path.suffix != ".tmp"]
    assert len(whole) == 2 and len(list(cache.iterdir())) == 3
