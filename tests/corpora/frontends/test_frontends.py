"""The STFT front end against published figures, torch and librosa."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.audio.io import read_audio
from corpora.frontends.base import trim_bounds
from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft, overlap_add
from corpora.types import AudioFault, Sound
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data


def _published(shared: Path) -> list[dict[str, Any]]:
    text = (shared / "published-weights/expected_dvae-speech_dkf.json").read_text()
    utterances: list[dict[str, Any]] = json.loads(text)["utterances"]
    return utterances


def test_published_input_figures(shared: Path) -> None:
    frontend = Stft(16000, 512, 256)
    utterances = _published(shared)
    assert len(utterances) >= 4
    for utterance in utterances:
        sound = read_audio(shared / utterance["file"])
        assert len(sound.samples) == utterance["n_samples"]
        start, end = trim_bounds(sound.samples[:, 0], 30.0)
        assert [start, end] == utterance["trim"]
        assert np.abs(sound.samples[start:end]).max() == utterance["scale"]
        x = frontend.features(frontend.prepare(sound))
        assert x.shape == (utterance["T"], utterance["F"]) and x.dtype == np.float32
        expected = utterance["input"]
        wide = x.astype(np.float64)
        np.testing.assert_allclose(wide.sum(), expected["power_sum"], rtol=1e-12)
        np.testing.assert_allclose(np.log(wide).sum(), expected["log_power_sum"], rtol=1e-12)
        np.testing.assert_allclose(wide.min(), expected["power_min"], rtol=1e-6)
        for frame, values in expected["probe"].items():
            np.testing.assert_allclose(x[int(frame), :5], values, rtol=1e-6)


@pytest.mark.parametrize("window, hop", [(512, 256), (1024, 256), (512, 128), (400, 160), (512, 300)])
@pytest.mark.parametrize("count", [512 * 20, 512 * 20 + 77])
def test_inverse_is_the_identity(window: int, hop: int, count: int) -> None:
    frontend = Stft(16000, window, hop)
    waveform = np.random.RandomState(0).standard_normal(max(count, window))
    spectrum = frontend.spectrum(waveform)
    assert spectrum.shape == (1 + len(waveform) // hop, frontend.dim)
    back = frontend.waveform(spectrum)
    assert len(back) == (len(spectrum) - 1) * hop
    np.testing.assert_allclose(back, waveform[: len(back)], atol=1e-10)
    whole = frontend.waveform(spectrum, len(waveform))
    assert len(whole) == len(waveform)
    covered = (len(spectrum) - 1) * hop + window // 2  # all samples, unless hops are longer than half a window
    assert covered >= len(waveform) or hop > window // 2
    np.testing.assert_allclose(whole[:covered], waveform[:covered], atol=1e-8)


@pytest.mark.parametrize("window, hop", [(512, 256), (1024, 256), (30, 7), (16, 16)])
def test_spectrum_is_that_of_numpy_and_of_torch_stft(window: int, hop: int) -> None:
    frontend = Stft(16000, window, hop)
    waveform = np.random.RandomState(1).standard_normal(12345)
    taper = np.sin(np.pi * (np.arange(window) + 0.5) / window)
    padded = np.pad(waveform, window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    expected = np.fft.rfft(frames * taper)
    np.testing.assert_allclose(frontend.spectrum(waveform), expected, atol=1e-11)
    theirs = torch.stft(
        torch.from_numpy(waveform),
        window,
        hop,
        window=torch.from_numpy(taper),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    np.testing.assert_allclose(frontend.spectrum(waveform), theirs.T.numpy(), atol=1e-11)


@pytest.mark.parametrize("hop", [3, 4, 10, 13])
def test_a_batch_is_inverted_by_overlap_add_written_out(hop: int) -> None:
    """Of arbitrary spectra, which are the transform of no signal; also with gaps that no window covers."""
    window, random = np.hamming(10), np.random.RandomState(2)
    spectra = random.standard_normal((2, 3, 5, 6)) + 1j * random.standard_normal((2, 3, 5, 6))
    found = overlap_add(torch.from_numpy(spectra), torch.from_numpy(window), hop).numpy()
    assert found.shape == (2, 3, 4 * hop + 10)
    for index in np.ndindex(2, 3):
        total, weight = np.zeros(4 * hop + 10), np.zeros(4 * hop + 10)
        for t, spectrum in enumerate(spectra[index]):
            total[t * hop : t * hop + 10] += window * np.fft.irfft(spectrum, 10)
            weight[t * hop : t * hop + 10] += window**2
        expected = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.0)
        np.testing.assert_allclose(found[index], expected, atol=1e-12)
        assert (expected == 0.0).sum() == 4 * max(0, hop - 10)


def test_trimming_is_that_of_librosa() -> None:
    librosa_effects = pytest.importorskip("librosa.effects")
    random = np.random.RandomState(0)
    for count in (100, 2048, 5000, 16000, 51200):
        for _ in range(4):
            loudness = np.repeat(10 ** random.uniform(-3, 0, size=count // 700 + 1), 700)[:count]
            samples = loudness * random.standard_normal(count)
            for trim_db in (10.0, 30.0, 60.0):
                _, expected = librosa_effects.trim(samples, top_db=trim_db)
                assert trim_bounds(samples, trim_db) == tuple(expected)


def test_prepare_mixes_resamples_trims_and_scales() -> None:
    frontend = Stft(8000, 256, 128)
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    silence = np.zeros(16000)
    mono = np.concatenate([silence, tone, silence])
    sound = Sound(np.stack([mono, 0.5 * mono], axis=1), 16000)
    waveform = frontend.prepare(sound)
    assert np.abs(waveform).max() == 1.0
    assert 8000 <= len(waveform) <= 8000 + 2 * 2048
    assert len(Stft(8000, 256, 128, trim_db=None).prepare(sound)) == 24000


def test_channels_that_cancel_are_named() -> None:
    tone = np.sin(np.arange(4000.0))
    with pytest.raises(AudioFault, match=r"channels.*data\.channel"):
        Stft(16000, 512, 256).prepare(Sound(np.stack([tone, -tone], axis=1), 16000))


def test_nan_never_passes() -> None:
    samples = np.ones((4000, 1))
    samples[7] = np.nan
    with pytest.raises(AudioFault, match="NaN"):
        Stft(16000, 512, 256).prepare(Sound(samples, 16000))


def test_settings_choose_window_and_hop() -> None:
    for bins, rate, window, hop in [(257, 16000, 512, 256), (513, 16000, 1024, 256), (129, 8000, 256, 128)]:
        frontend = open_frontend(Data(rate=rate), bins)
        assert isinstance(frontend, Stft)
        assert (frontend.window, frontend.hop, frontend.dim, frontend.rate) == (window, hop, bins, rate)
    frontend = open_frontend(Data(window=512, hop=100, trim_db=None), 257)
    assert isinstance(frontend, Stft) and frontend.hop == 100 and frontend.trim_db is None


@pytest.mark.parametrize(
    "data, bins, message",
    [
        (Data(window=1024), 257, r" 513 .*model\.bins.* 257.\n.*data\.window=512"),
        (Data(window=513), 257, r"data\.window.*got 513\b"),
        (Data(hop=513), 257, r"data\.hop.* 513.* 512"),
        (Data(hop=0), 257, r"data\.hop.* 0\b"),
        (Data(rate=0), 257, r"data\.rate.* 0\b"),
        (Data(trim_db=-3.0), 257, r"data\.trim_db.*-3"),
        (Data(frontend="sfft"), 257, "'sfft'.*'stft'"),
        (Data(), 1, r"data\.window.* 0\b"),
    ],
)
def test_contradictions_are_refused(data: Data, bins: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_frontend(data, bins)
