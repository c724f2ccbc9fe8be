"""Reading audio: every fault by its name, whole files whole."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio.integrity import missing_bytes
from corpora.audio.io import mix_to_mono, read_audio, resample
from corpora.frontends.stft import Stft
from corpora.types import AudioFault
from tests.support.faults import FAULTS

FINE = {
    "mixed_rate/a/ok_16k.flac",
    "mixed_rate/a/other_8k.flac",
    "parole_été_Ω_音声.flac",
    "stereo.flac",
    "stereo.wav",
}


def test_the_manifest_has_nothing_else(shared: Path) -> None:
    with (shared / "corpora/faults/manifest.csv").open(encoding="utf-8", newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == set(FAULTS) | FINE


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(shared: Path, name: str) -> None:
    with pytest.raises(AudioFault, match=FAULTS[name]):
        Stft(16000, 512, 256).prepare(read_audio(shared / "corpora/faults" / name))


@pytest.mark.parametrize("name", sorted(FINE))
def test_a_good_file_is_read(shared: Path, name: str) -> None:
    waveform = Stft(16000, 512, 256).prepare(read_audio(shared / "corpora/faults" / name))
    assert np.abs(waveform).max() == 1.0


def _noise(count: int = 30000) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 0.1 * np.random.RandomState(0).standard_normal(count)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.WAV"])
def test_a_file_cut_short_is_refused_in_every_format(tmp_path: Path, name: str) -> None:
    if name.endswith("mp3") and "MP3" not in soundfile.available_formats():
        pytest.skip("the installed libsndfile writes no mp3")
    path = tmp_path / name
    soundfile.write(path, _noise(), 16000)
    assert len(read_audio(path).samples) == 30000
    whole = path.read_bytes()
    for share in (0.9, 0.5):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AudioFault, match=rf"{name}.*cut short"):
            read_audio(path)


@pytest.mark.parametrize("options", [{"format": "RF64"}, {"format": "WAVEX"}, {"endian": "BIG"}])
def test_relatives_of_wav_are_whole_and_seen_when_cut(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), 16000, **options)
    assert len(read_audio(path).samples) == 30000
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AudioFault, match=r"a\.wav.* 1000 bytes"):
        read_audio(path)


def test_a_streamed_wav_that_knows_no_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), 16000)
    raw = bytearray(path.read_bytes())
    raw[4:8] = raw[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(raw)
    assert len(read_audio(path).samples) == 30000
    assert missing_bytes(io.BytesIO(bytes(raw)), len(raw)) == 0


def test_no_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioFault, match=r"none\.wav.*No such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(AudioFault, match=f"{tmp_path}.*folder"):
        read_audio(tmp_path)


def test_samples_are_those_of_the_file(tmp_path: Path) -> None:
    samples = np.random.RandomState(0).randint(-32768, 32768, size=(1000, 2)).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", samples, 16000)
    sound = read_audio(tmp_path / "a.flac")
    np.testing.assert_array_equal(sound.samples, samples / 32768)
    np.testing.assert_array_equal(mix_to_mono(sound.samples), samples.sum(axis=1) / 65536)


def test_resampling_keeps_a_tone_and_removes_what_cannot_be_kept() -> None:
    times = np.arange(48000) / 48000
    kept, lost = np.sin(2 * np.pi * 1000 * times), np.sin(2 * np.pi * 11000 * times)
    middle = slice(2000, -2000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.testing.assert_allclose(resample(kept, 48000, 16000)[middle], expected[middle], atol=1e-5)
    assert np.abs(resample(lost, 48000, 16000)[middle]).max() < 1e-5
    assert resample(kept, 48000, 48000) is kept
