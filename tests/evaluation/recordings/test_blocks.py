"""Blocks of recordings: put together again they are the recording, whatever its length, rate and cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.frontends.stft import Stft
from corpora.types import AudioFault
from dvae_pyro.errors import UserError
from evaluation.recordings.blocks import Assembler, Layout, blocks, layout, restored
from evaluation.recordings.files import Recording, find_recordings, match_clean, read_mono
from evaluation.recordings.output import SoundOut


def _sound(path: Path, samples: int, rate: int = 8000, channels: int = 1) -> Recording:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(samples).uniform(-0.5, 0.5, (samples, channels))
    soundfile.write(path, noise, rate)
    return Recording(path, path.stem)


@pytest.mark.parametrize("samples", [9, 100, 511, 4000, 12_001, 40_003, 40_960])
def test_blocks_put_together_are_the_recording(tmp_path: Path, samples: int) -> None:
    recording = _sound(tmp_path / "a.wav", samples)
    cut = layout(recording, block=1.0, overlap=0.2)
    frontend, out = Stft(8000, 128, 64), list[np.ndarray]()
    assembler = Assembler(cut, out.append)
    made = list(blocks([(0, recording, cut)], frontend))
    assert len(made) == len(cut.starts) and (samples <= 12_000) == (len(made) == 1)
    for block in reversed(made):
        assert block.x.shape == block.spectrum.shape
        assembler.add(block.number, restored(block, block.spectrum, cut.rate, frontend))
    assert assembler.whole
    np.testing.assert_allclose(np.concatenate(out), read_mono(recording), atol=1e-9)


def test_blocks_are_equal_and_overlap(tmp_path: Path) -> None:
    cut = layout(_sound(tmp_path / "a.wav", 100_000), block=1.0, overlap=0.25)
    bounds = [cut.bounds(number) for number in range(len(cut.starts))]
    assert bounds[0][0] == 0 and bounds[-1][1] == 100_000
    assert {stop - start for start, stop in bounds[:-1]} == {cut.length} and cut.length <= 8000
    assert {stop - start for (_, stop), (start, _) in zip(bounds, bounds[1:], strict=False)} == {2000}


def test_where_blocks_overlap_one_fades_into_the_next() -> None:
    out = list[np.ndarray]()
    assembler = Assembler(Layout(7, 1, (0, 3), 4), out.append)
    assembler.add(1, np.full(4, 3.0))
    assert not out
    assembler.add(0, np.full(4, 1.0))
    assert np.concatenate(out).tolist() == [1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100])
def test_other_rates_come_back_as_they_were(tmp_path: Path, rate: int) -> None:
    """Band-limited noise survives the way to 8 kHz and back; the number of samples is exact."""
    recording = _sound(tmp_path / "a.wav", 3 * rate + 7, rate)
    whole = read_mono(recording)
    spectrum = np.fft.rfft(whole)
    spectrum[int(3000 / rate * len(whole)) :] = 0.0
    smooth = np.fft.irfft(spectrum, len(whole))
    soundfile.write(tmp_path / "a.wav", smooth, rate, subtype="FLOAT")
    cut = layout(recording)
    frontend = Stft(8000, 256, 64)
    (block,) = blocks([(0, recording, cut)], frontend)
    samples = restored(block, block.spectrum, rate, frontend)
    assert len(samples) == len(smooth)
    inner = slice(rate // 10, -rate // 10)
    np.testing.assert_allclose(samples[inner], smooth[inner], atol=2e-4)


def test_clean_recordings_are_found_by_name(tmp_path: Path) -> None:
    for name in ("noisy/a/1.wav", "noisy/b/2.wav", "clean/a/1.flac", "clean/x/2.wav"):
        _sound(tmp_path / name, 50)
    noisy = find_recordings(tmp_path / "noisy", "--noisy")
    assert [r.name for r in noisy] == ["a/1", "b/2"]
    assert [r.name for r in match_clean(noisy, tmp_path / "clean")] == ["a/1", "x/2"]
    _sound(tmp_path / "clean/y/2.wav", 50)
    with pytest.raises(UserError, match=r"b/2.*x/2, y/2"):
        match_clean(noisy, tmp_path / "clean")
    (tmp_path / "clean/y/2.wav").unlink()
    _sound(tmp_path / "noisy/c/3.wav", 50)
    with pytest.raises(UserError, match="c/3"):
        match_clean(find_recordings(tmp_path / "noisy", "--noisy"), tmp_path / "clean")
    with pytest.raises(UserError, match="nowhere"):
        find_recordings(tmp_path / "nowhere", "--noisy")
    _sound(tmp_path / "twice/a.wav", 50)
    _sound(tmp_path / "twice/a.flac", 50)
    with pytest.raises(UserError, match="twice.* a "):
        find_recordings(tmp_path / "twice", "--noisy")


def test_a_clean_recording_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"50 samples.*60"):
        read_mono(_sound(tmp_path / "a.wav", 50), 8000, 60)


def test_a_long_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    recording = _sound(tmp_path / "a.wav", 40_000)
    cut = layout(recording, block=1.0, overlap=0.2)
    path = recording.path
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(AudioFault, match=r"a\.wav.*cut short"):
        list(blocks([(0, recording, cut)], Stft(8000, 128, 64)))


def test_sounds_are_whole_or_not_there(tmp_path: Path) -> None:
    with SoundOut(tmp_path / "out" / "a.wav", 8000, keep=True) as out:
        out(np.array([0.5, -0.25]))
        out(np.array([2.0]))
    samples, rate = soundfile.read(tmp_path / "out" / "a.wav")
    assert rate == 8000 and samples[:2].tolist() == [0.5, -0.25] and samples[2] > 0.999
    assert out.samples.tolist() == [0.5, -0.25, 2.0] and out.peak == 2.0
    with pytest.raises(KeyboardInterrupt), SoundOut(tmp_path / "b.wav", 8000, keep=False) as out:
        out(np.array([0.5]))
        raise KeyboardInterrupt
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
