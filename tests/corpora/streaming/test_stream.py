"""Streams: the sequences of `load_sequences`, each once in an epoch over all processes, and from any place on again."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from corpora.audio.io import read_audio
from corpora.frontends.base import FrontEnd, PassFrames
from corpora.frontends.fbank import LogMel
from corpora.frontends.stft import Stft
from corpora.frontends.waveform import Waveform
from corpora.loading.sequences import load_sequences
from corpora.streaming.choice import expected_bytes
from corpora.streaming.encoding import EncodedSequence, encoding_of
from corpora.streaming.pieces import GroupPiece, pieces_of_utterances
from corpora.streaming.stream import Counts, Position, Stream
from corpora.types import AudioFault, Corpus, Frames, Sound, Utterance
from dvae_pyro.errors import UserError
from tests.support.streams import give, numbered

CPU = torch.device("cpu")


def stream_of(utterances: Sequence[Utterance], *, group: int = 3, **settings: int) -> Stream:
    pieces = [GroupPiece(utterances[start : start + group]) for start in range(0, len(utterances), group)]
    return Stream(pieces, encoding_of(PassFrames(1)), 2, **{"window": 2, **settings})  # type: ignore[arg-type]  # numbers by name


def names(found: Sequence[tuple[EncodedSequence, Position]]) -> list[tuple[str, int]]:
    return [(segment.file, segment.start) for segment, _ in found]


MADE = numbered([2 + n % 7 for n in range(41)])


@pytest.mark.parametrize("size", [1, 2, 3, 14])
def test_each_sequence_is_seen_once_over_all_processes(size: int) -> None:
    stream = stream_of(MADE)
    expected = Counter((u.file, start) for n, u in enumerate(MADE) for start in range(0, (2 + n % 7) // 2 * 2, 2))
    for epoch in range(3):
        parts = [names(list(stream.sequences(epoch, rank, size))) for rank in range(size)]
        assert sum(map(Counter, parts), Counter()) == expected
        windows = [stream.windows(epoch, rank, size) for rank in range(size)]
        assert sorted(piece for of_rank in windows for window in of_rank for piece in window) == list(range(14))


def test_an_epoch_is_a_function_of_seed_epoch_and_processes() -> None:
    orders = {
        (seed, epoch, size): tuple(names(list(stream_of(MADE, seed=seed).sequences(epoch, 0, size))))
        for seed in (0, 1)
        for epoch in (0, 1)
        for size in (1, 2)
    }
    assert len(set(orders.values())) == len(orders)
    for workers in (1, 4):
        again = names(list(stream_of(MADE, seed=1, workers=workers).sequences(1, 0, 2)))
        assert tuple(again) == orders[1, 1, 2]
    # Sequences of a window are mixed, not only its pieces, and each window in its own way.
    one = Stream(pieces_of_utterances(numbered([2] * 640)), encoding_of(PassFrames(1)), 2, window=2)
    places = [[int(file) % 64 for file, _ in names(list(one.sequences(0)))[n : n + 128]] for n in range(0, 640, 128)]
    assert len(set(map(tuple, places))) == 5
    first = [int(file) // 3 for file, _ in orders[0, 0, 1][:20]]
    assert first != sorted(first) and first != sorted(first, reverse=True)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stream_goes_on_from_any_place(rank: int) -> None:
    stream = stream_of(MADE)
    whole = list(stream.sequences(4, rank, 2))
    assert len(whole) > 30
    for place in range(len(whole)):
        rest = list(stream.sequences(4, rank, 2, whole[place][1]))
        assert names(rest) == names(whole[place + 1 :])


def test_going_on_reads_one_window_again_and_none_before_it() -> None:
    read: list[str] = []

    def note(file: str, frames: int) -> Frames:
        read.append(file)
        return give(frames)

    utterances = [Utterance(str(n), "", functools.partial(note, str(n), 4)) for n in range(24)]
    stream = stream_of(utterances)  # 8 pieces of 3, windows of 2
    windows = stream.windows(0)
    whole = list(stream.sequences(0))
    position = whole[15][1]  # 12 sequences a window
    assert position == Position(1, 4)
    read.clear()
    assert len(list(stream.sequences(0, 0, 1, position))) == 48 - 16
    unread = {str(3 * piece + k) for piece in windows[0] for k in range(3)}
    assert sorted(read, key=int) == [str(n) for n in range(24) if str(n) not in unread]


class _AtOnce(ThreadPoolExecutor):
    """Reads when it is asked to: as far ahead as threads can ever be."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Any = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize(("workers", "place"), [(1, 0), (3, 0), (1, 17)])
def test_a_process_holds_one_window_and_a_piece_for_each_worker(
    workers: int, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 pieces of 6 sequences, in windows of 5: used sequences are released, and pieces are read in their place."""
    monkeypatch.setattr("corpora.streaming.stream.ThreadPoolExecutor", _AtOnce)
    read: list[str] = []
    cut: list[weakref.ref[np.ndarray]] = []

    def note(file: str) -> Frames:
        read.append(file)
        return give(4)

    class Noted(type(encoding_of(PassFrames(1)))):  # type: ignore[misc]  # a class that is chosen by a function
        def cut(self, data: Any, start: int, frames: int) -> Any:
            part = super().cut(data, start, frames)
            cut.append(weakref.ref(part))
            return part

    utterances = [Utterance(str(n), "", functools.partial(note, str(n))) for n in range(60)]
    stream = replace(stream_of(utterances, window=5, workers=workers), encoding=Noted(PassFrames(1)))
    start = list(stream_of(utterances, window=5).sequences(0))[place - 1][1] if place else Position()
    read.clear()
    most = 0
    for used, _ in enumerate(stream.sequences(0, position=start), 1 + place):
        held = sum(array() is not None for array in cut)
        most = max(most, held)
        assert held <= 6 * (5 + workers) + 1  # and the one that is being used
        assert 2 * len(read) - used <= 6 * (5 + workers)
    assert most > 24 and used == 120


def test_short_and_broken_recordings_are_counted(tmp_path: Path) -> None:
    def fail() -> Frames:
        raise AudioFault("is cut short")

    utterances = [*numbered([1, 4, 5]), Utterance("broken", "", fail)]
    counts = Counts()
    found = list(stream_of(utterances, skip=True).sequences(0, counts=counts))
    assert len(found) == 4 and (counts.utterances, counts.sequences, counts.short) == (4, 4, 1)
    assert counts.broken == ["broken (is cut short)"]
    kept = list(stream_of(utterances, skip=True, keep_short=True).sequences(0))
    assert sorted(segment.frames for segment, _ in kept) == [1, 2, 2, 2, 2]
    with pytest.raises(UserError, match=r"broken .* 1 .*broken.* is cut short"):
        list(stream_of(utterances).sequences(0))
    whole = Stream(pieces_of_utterances(numbered([3, 5])), encoding_of(PassFrames(1)), None)
    assert sorted(segment.frames for segment, _ in whole.sequences(0)) == [3, 5]


FRONT_ENDS: dict[str, FrontEnd] = {
    "stft": Stft(16000, 512, 256),
    "stft of other bins": Stft(16000, 130, 30, trim_db=None),
    "waveform": Waveform(16000, 200),
    "fbank": LogMel(16000, 400, 160, 40),
}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_features_are_those_of_sequences_in_memory(tmp_path: Path, shared: Path, name: str) -> None:
    """Bit for bit, of FLAC of 16 bits; blocks of a few, of different lengths."""
    paths = sorted((shared / "corpora/librispeech-mini/valid").rglob("*.flac"))[:6]
    utterances = [Utterance(p.stem, p.parent.name, functools.partial(read_audio, p)) for p in paths]
    frontend = FRONT_ENDS[name]
    corpus = Corpus("made", "", {"train": utterances})
    for frames, short in ((150, "drop"), (400, "keep"), (None, "drop")):
        expected = load_sequences(corpus, "train", frontend, sequence_frames=frames, short=short)
        stream = Stream(pieces_of_utterances(utterances), encoding_of(frontend), frames, keep_short=short == "keep")
        segments = [segment for segment, _ in stream.sequences(0)]
        x = stream.encoding.features(segments, CPU)
        assert x.dtype == torch.float32 and len(segments) == len(expected)
        found = {(segment.file, segment.start): x[:, n] for n, segment in enumerate(segments)}
        for item in expected:
            assert torch.equal(found[item.file, item.start][: len(item.x)], item.x)
            assert not found[item.file, item.start][len(item.x) :].any()
        speakers = {segment.file: segment.speaker for segment in segments}
        assert speakers == {item.file: item.speaker for item in expected}


@pytest.mark.cuda
def test_spectra_on_a_gpu_are_those_of_the_processor() -> None:
    encoding = encoding_of(Stft(16000, 512, 256, trim_db=None))
    sound = Sound(0.1 * np.random.RandomState(0).standard_normal((9000, 1)), 16000)
    data, scale, frames = encoding.read(sound)
    segments = [
        EncodedSequence(encoding.cut(data, s, t), scale, t, "", "", s) for s, t in ((0, frames), (3, 20), (10, 5))
    ]
    found = encoding.features(segments, torch.device("cuda")).cpu()
    torch.testing.assert_close(found, encoding.features(segments, CPU), rtol=1e-6, atol=0.0)


class _Crossing(TorchDispatchMode):
    """Bytes that are copied to another device, by type."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.bytes: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for v in args:
            if isinstance(v, torch.Tensor) and isinstance(result, torch.Tensor) and v.device != result.device:
                self.bytes[v.dtype] += v.numel() * v.element_size()
        return result


@pytest.mark.parametrize("name", ["stft", "waveform"])
def test_what_is_copied_to_a_device_are_samples_of_16_bits(name: str) -> None:
    """On a device without values, which an operation on a tensor of the CPU refuses: the transform is on it."""
    encoding = encoding_of(FRONT_ENDS[name])
    data, scale, frames = encoding.read(Sound(0.1 * np.random.RandomState(0).standard_normal((9000, 1)), 16000))
    segments = [EncodedSequence(encoding.cut(data, s, 20), scale, 20, "", "", s) for s in (0, 3, 10)]
    with _Crossing() as crossing:
        found = encoding.features(segments, torch.device("meta"))
    assert found.device.type == "meta" and found.shape == encoding.features(segments, CPU).shape
    samples = sum(segment.data.nbytes for segment in segments)
    assert crossing.bytes.pop(torch.int16) == samples
    window = FRONT_ENDS["stft"].taper.nbytes if name == "stft" else 0  # type: ignore[attr-defined]  # an Stft
    assert sum(crossing.bytes.values()) <= window + 16 * len(segments)  # their divisors and lengths


def test_what_is_not_of_sixteen_bits_is_rounded_below_its_peak(tmp_path: Path) -> None:
    """A quiet recording of 24 bits keeps 16 of them: -101 dB below its peak, not below full scale."""
    sound = 1e-3 * np.random.RandomState(0).standard_normal(8000)
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype="PCM_24")
    frontend = Stft(16000, 512, 256, trim_db=None)
    encoding = encoding_of(frontend)
    data, scale, frames = encoding.read(read_audio(tmp_path / "a.wav"))
    assert np.abs(data).max() == 32767
    exact = frontend.features(frontend.prepare(read_audio(tmp_path / "a.wav")))
    found = encoding.features([EncodedSequence(encoding.cut(data, 0, frames), scale, frames, "", "", 0)], CPU)[
        :, 0
    ].numpy()
    error = np.sum((found - exact) ** 2) / np.sum(exact**2)
    assert 0.0 < error < 1e-8


def test_fingerprints_change_with_what_decides_the_order() -> None:
    made = {stream_of(MADE, **more).fingerprint() for more in ({}, {"seed": 1}, {"window": 3}, {"group": 4})}
    assert len(made) == 4
    assert stream_of(MADE).fingerprint() == stream_of(MADE, workers=3).fingerprint()


def test_what_features_need_is_estimated_from_files_counted_once(tmp_path: Path) -> None:
    for n in range(5):
        soundfile.write(tmp_path / f"{n}.wav", np.zeros(16000), 16000, subtype="PCM_16")
    frontend = Stft(16000, 512, 256)
    parts = [Utterance(f"{n}", "", lambda: give(1), source=(tmp_path / f"{n % 5}.wav", n)) for n in range(50)]
    assert expected_bytes(parts, frontend) == pytest.approx(5 * 16000 / 256 * 257 * 4, rel=0.01)
    assert expected_bytes(parts, PassFrames(1)) == pytest.approx(5 * 32044)
    assert expected_bytes(numbered([3]), frontend) == 0.0
