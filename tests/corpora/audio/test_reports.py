"""Odd files, most of them from reports of users of other libraries: a line each, with what should happen.

A file is read, with so many samples, or is a fault with a name; no library's exception comes through. Silence and a
remark are judged by the front end and the reader, so every file goes all the way to features.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from corpora.audio.io import CONVERTED_FIRST, EXTENSIONS, read_audio
from corpora.frontends.stft import Stft
from corpora.loading.cache import read
from corpora.loading.sequences import Prepared, load_sequences
from corpora.recipes.folder import find_audio
from corpora.registry import open_corpus
from corpora.types import AudioFault
from dvae_pyro.errors import UserError
from evaluation.resynthesis.metrics import score
from inference.settings.tree import DataSettings as Data
from tests.sounds import RATE, voice

COUNT = 8000
FRONTEND = Stft(16000, 64, 32, trim_db=None)
Signal = np.ndarray[Any, np.dtype[np.float64]]


def noise(channels: int = 1, count: int = COUNT) -> Signal:
    return 0.1 * np.random.RandomState(0).standard_normal((count, channels))


class Row(NamedTuple):
    """A report: what makes the file, and the samples that are read, or what the fault says."""

    make: Callable[[Path], object]
    expected: int | str
    remark: str = ""
    channel: int | None = None


def written(samples: Signal | None = None, rate: int = 16000, **options: str) -> Callable[[Path], object]:
    """A file as libsndfile writes it, in the format of the ending unless another is named."""

    def make(path: Path) -> None:
        soundfile.write(path, noise() if samples is None else samples, rate, **options)

    return make


def content(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


def wav(
    samples: bytes = b"\1\2" * COUNT,
    *,
    announced: int | None = None,
    riff: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    form: tuple[int, int, int, int] = (1, 1, 16000, 16),
    prefix: bytes = b"",
) -> Callable[[Path], object]:
    """A WAV byte by byte: code, channels, rate and bits in `form`; sizes as announced, or as they are."""
    code, channels, rate, bits = form
    width = channels * bits // 8
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, code, channels, rate, (rate * width) % 2**32, width, bits)
    body = b"WAVE" + before + chunk
    body += struct.pack("<4sI", b"data", len(samples) if announced is None else announced) + samples + after
    return content(prefix + struct.pack("<4sI", b"RIFF", len(body) if riff is None else riff) + body)


def chunk(name: bytes, text: bytes) -> bytes:
    return struct.pack("<4sI", name, len(text)) + text + b"\0" * (len(text) % 2)


def foreign(ending: str, **options: str) -> Callable[[Path], object]:
    """The bytes of another format under this name."""

    def make(path: Path) -> None:
        other = path.with_name(f"other{ending}")
        soundfile.write(other, noise(), 16000, **options)
        other.rename(path)

    return make


def link_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


PCM = noise()
STEREO = noise(2)
OPPOSITE = np.concatenate([PCM, -PCM], axis=1)
NEARLY = np.concatenate([PCM, -PCM + 1e-4 * noise(1)[::-1]], axis=1)
UNFINISHED = "header was never finished"
ID3 = b"ID3\4\0\0" + bytes([0, 0, 0, 20]) + bytes(20)

REPORTS: dict[str, Row] = {
    # codings that cannot seek; of most the last block is read whole
    "gsm.wav": Row(written(subtype="GSM610"), 8320),
    "gsm.aiff": Row(written(subtype="GSM610"), 8000),
    "g721.wav": Row(written(subtype="G721_32"), 8040),
    "g721.au": Row(written(subtype="G721_32"), 8040),
    "ima.wav": Row(written(subtype="IMA_ADPCM"), 8136),
    # headers
    "killed recorder.wav": Row(wav(announced=0), COUNT, UNFINISHED),
    "killed recorder, nothing counted.wav": Row(wav(announced=0, riff=0), COUNT, UNFINISHED),
    "killed recorder, stereo, 24 bit.wav": Row(
        wav(b"\1\2\3\3\2\1" * COUNT, announced=0, form=(1, 2, 16000, 24)), COUNT, UNFINISHED
    ),
    "killed recorder, half a sample.wav": Row(wav(b"\1\2" * COUNT + b"\3", announced=0), COUNT, UNFINISHED),
    "no samples, then a chunk.wav": Row(wav(b"", after=chunk(b"LIST", b"INFOsome text")), "no samples"),
    "no samples.wav": Row(wav(b""), "no samples"),
    "length unknown.wav": Row(wav(announced=0xFFFFFFFF, riff=0xFFFFFFFF), COUNT),
    "chunks before.wav": Row(wav(before=chunk(b"JUNK", b"odd") + chunk(b"bext", bytes(602))), COUNT),
    "chunks after.wav": Row(wav(after=chunk(b"LIST", b"INFOsome text") + chunk(b"id3 ", b"tags")), COUNT),
    "rubbish after.wav": Row(wav(after=b"\xff" * 99), COUNT),
    "odd chunk without its pad.wav": Row(wav(b"\x90" * 7999, form=(1, 1, 16000, 8)), 7999),
    "id3 before.flac": Row(lambda path: (written()(path), path.write_bytes(ID3 + path.read_bytes())), COUNT),
    "no rate.wav": Row(wav(form=(1, 1, 0, 16)), "damaged"),
    "one hertz.wav": Row(wav(form=(1, 1, 1, 16)), " 1 samples per second"),
    "four gigahertz.wav": Row(wav(form=(1, 1, 2**32 - 1, 16)), "damaged"),
    "no channels.wav": Row(wav(form=(1, 0, 16000, 16)), "damaged"),
    "no bits.wav": Row(wav(form=(1, 1, 16000, 0)), "damaged"),
    "a coding that nobody knows.wav": Row(wav(form=(0x1234, 1, 16000, 16)), "damaged"),
    # cut short in formats whose decoders say nothing
    "cut.aiff": Row(lambda path: (written()(path), path.write_bytes(path.read_bytes()[:9000])), "cut short"),
    "cut.au": Row(lambda path: (written()(path), path.write_bytes(path.read_bytes()[:9000])), "cut short"),
    "cut.w64": Row(lambda path: (written()(path), path.write_bytes(path.read_bytes()[:9000])), "cut short"),
    "cut.caf": Row(lambda path: (written()(path), path.write_bytes(path.read_bytes()[:9000])), "cut short"),
    # endings and formats
    "a.opus": Row(written(format="OGG", subtype="OPUS"), COUNT),
    "a.OGA": Row(written(format="OGG", subtype="VORBIS"), COUNT),
    "a.AIF": Row(written(format="AIFF"), COUNT),
    "a.snd": Row(written(format="AU"), COUNT),
    "a.Caf": Row(written(format="CAF", subtype="ALAC_16"), COUNT),
    "a.rf64": Row(written(format="RF64"), COUNT),
    "a.sph": Row(written(format="NIST"), COUNT),
    "flac inside.wav": Row(foreign(".flac"), COUNT),
    "wav inside.flac": Row(foreign(".wav"), COUNT),
    "ogg inside.mp3": Row(foreign(".ogg"), COUNT),
    **{f"a{ending}": Row(content(b"\0\0\0 ftypM4A "), f'ffmpeg -i "a{ending}" "a.flac"') for ending in CONVERTED_FIRST},
    "an m4a inside.wav": Row(content(b"\0\0\0 ftypM4A " + bytes(999)), "libsndfile"),
    "a web page.wav": Row(content(b"<!DOCTYPE html><html>404"), "text '<!DOCTYPE"),
    "a pointer.wav": Row(content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "compressed once more.wav": Row(content(b"\x1f\x8b\x08" + bytes(99)), "libsndfile"),
    # samples
    "channels cancel.wav": Row(written(OPPOSITE), r"channels .*data\.channel=0"),
    "channels nearly cancel.flac": Row(written(NEARLY), r"channels .*data\.channel=0"),
    "channels cancel, one taken.wav": Row(written(OPPOSITE), COUNT, channel=1),
    "a channel that is not there.wav": Row(written(STEREO), r"0 to 1\b.*data\.channel=2", channel=2),
    "one channel for all.wav": Row(written(), COUNT, channel=1),
    "one channel silent.wav": Row(written(np.concatenate([PCM, 0 * PCM], axis=1)), COUNT),
    "six channels.wav": Row(written(noise(6)), COUNT),
    "louder than full scale.wav": Row(written(3e4 * PCM, subtype="FLOAT"), COUNT),
    "hardly anything.wav": Row(written(1e-30 * PCM, subtype="FLOAT"), COUNT),
    "all zero.wav": Row(written(0 * PCM), "silent"),
    "not a number.wav": Row(written(np.full((99, 1), np.nan), subtype="FLOAT"), "99 NaN"),
    "one sample.wav": Row(written(PCM[:1]), " 1 samples"),
    "eight bit.wav": Row(written(subtype="PCM_U8"), COUNT),
    "double.wav": Row(written(subtype="DOUBLE"), COUNT),
    "11025 hertz.wav": Row(written(rate=11025), COUNT),
    "192 kilohertz.flac": Row(written(rate=192000), COUNT),
    # names, links, permissions
    f"{'ü' * 120}.wav": Row(written(), COUNT),
    "deco\u0301mpose\u0301.wav": Row(written(), COUNT),
    "a 'quoted' \"name\" with\nlines.wav": Row(written(), COUNT),
    "no utf-8 \udcff\udcfe.wav": Row(wav(), COUNT),
    "two.endings.WAV.wav": Row(written(), COUNT),
    "nowhere.wav": Row(link_to("nothing there.wav"), "cannot be opened"),
    "itself.wav": Row(link_to("itself.wav"), "cannot be opened"),
    "a pipe.wav": Row(os.mkfifo, "it is a folder, pipe or device"),
    "nothing.wav": Row(content(b""), "empty"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_what_happens(tmp_path: Path, name: str) -> None:
    row = REPORTS[name]
    folder = tmp_path / "train" / "anna"
    folder.mkdir(parents=True)
    row.make(folder / name)
    data = Data(corpus="folder", root=str(tmp_path), channel=row.channel)
    (utterance,) = open_corpus(data, 0, ["train"]).splits["train"]
    assert utterance.file == f"train/anna/{name}"
    reading = read(utterance, FRONTEND)
    lines: list[str] = []

    def load() -> list[Prepared]:
        corpus = open_corpus(data, 0, ["train"])
        return load_sequences(corpus, "train", FRONTEND, sequence_frames=None, report=lines.append)

    if isinstance(row.expected, str):
        assert re.search(row.expected, reading.fault)
        with pytest.raises(UserError, match=r"data\.on_error=skip"):
            load()
        return
    sound = utterance.sound()
    assert reading.fault == "" and len(sound.samples) == row.expected
    (item,) = load()
    assert torch.isfinite(item.x).all() and len(item.x) == 1 + len(FRONTEND.prepare(sound)) // 32
    assert row.remark in reading.remark and bool(row.remark) == bool(reading.remark)
    assert any(reading.remark in line and name in line for line in lines) or not row.remark


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    written()(tmp_path / "a.wav")
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(AudioFault, match=r"a\.wav.*\(Permission denied\)"):
        read_audio(tmp_path / "a.wav")


def test_whatever_the_library_raises_is_about_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written()(tmp_path / "a.wav")
    for error in (ValueError("frames must be specified"), OverflowError("too large"), RuntimeError("decoder")):

        def fail(*args: object, error: Exception = error, **options: object) -> None:
            raise error

        monkeypatch.setattr(soundfile.SoundFile, "read", fail)
        with pytest.raises(AudioFault, match=rf"a\.wav.*\({error}\)"):
            read_audio(tmp_path / "a.wav")
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **options: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(AudioFault, match=r"a\.wav.*memory"):
        read_audio(tmp_path / "a.wav")


def test_what_is_found_by_its_ending(tmp_path: Path) -> None:
    for ending in EXTENSIONS:
        (tmp_path / f"a{ending.upper()}").touch()
    for name in ("._a.wav", ".hidden/a.wav", "a.txt", "a.mat", "a.raw", "converted.m4a", "converted.flac", "b.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = [f"a{ending.upper()}" for ending in EXTENSIONS] + ["b.m4a", "converted.flac"]
    assert find_audio(tmp_path, tmp_path) == sorted(expected)


def test_samples_of_a_channel_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    written(STEREO, subtype="DOUBLE")(tmp_path / "train" / "a.wav")
    for channel in (0, 1):
        data = Data(corpus="folder", root=str(tmp_path), channel=channel)
        (utterance,) = open_corpus(data, 0, ["train"]).splits["train"]
        np.testing.assert_array_equal(utterance.sound().samples, STEREO[:, channel : channel + 1])


def test_a_silent_estimate_has_no_intelligibility() -> None:
    reference = voice(2.0)
    found = score(reference, 0 * reference, RATE)
    assert all(math.isnan(value) for value in (found.si_sdr, found.pesq_wb, found.pesq_nb, found.stoi, found.estoi))
    assert found.rmse_plain == found.rmse_scaled > 0.0
