"""Log-mel and log-magnitude front ends against librosa, Kaldi's filters written out, and their own inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from corpora.frontends.fbank import LogMagnitude, LogMel, mel_filters
from corpora.frontends.registry import open_frontend
from corpora.types import Sound
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.sounds import voice


def _noise(count: int = 8000) -> np.ndarray:
    return np.random.RandomState(0).standard_normal(count)


def _emphasised(x: np.ndarray) -> np.ndarray:
    return np.array([x[0], *(b - 0.97 * a for a, b in zip(x, x[1:], strict=False))])


def test_filters_are_kaldis_triangles() -> None:
    """Written out bin by bin, as Kaldi's MelBanks computes its weights."""

    def mel(f: float) -> float:
        return 1127.0 * math.log(1.0 + f / 700.0)

    filters = mel_filters(23, 16000, 512)
    low, high = mel(20.0), mel(8000.0)
    delta = (high - low) / 24
    for b in range(23):
        left, centre, right = (low + (b + k) * delta for k in range(3))
        for k in range(257):
            m = mel(k * 16000 / 512)
            inside = left < m < right
            weight = (m - left) / (centre - left) if m <= centre else (right - m) / (right - centre)
            assert filters[b, k] == pytest.approx(weight if inside else 0.0, abs=1e-12)


def test_log_mel_is_that_of_librosas_transform() -> None:
    import librosa

    frontend, x = LogMel(16000, 400, 160, 80), _noise()
    spectrum = librosa.stft(
        _emphasised(x), n_fft=512, hop_length=160, win_length=400, window=np.hamming(400), pad_mode="reflect"
    )
    expected = np.log(mel_filters(80, 16000, 512) @ np.abs(spectrum) ** 2).T
    got = frontend.features(x)
    assert got.shape == (51, 80) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_tone_is_in_its_band_and_silence_at_the_floor() -> None:
    frontend = LogMel(8000, 200, 80, 40)
    for hertz in (300.0, 1000.0, 3300.0):
        tone = np.sin(2 * np.pi * hertz * np.arange(4000) / 8000)
        bands = (
            1127 * np.log1p(20 / 700) + (np.arange(40) + 1) * (1127 * np.log((1 + 4000 / 700) / (1 + 20 / 700))) / 41
        )
        nearest = int(np.abs(bands - 1127 * np.log1p(hertz / 700)).argmin())
        assert abs(int(frontend.features(tone)[20].argmax()) - nearest) <= 1
    assert np.allclose(frontend.features(np.zeros(4000)), math.log(1e-10))


@pytest.mark.parametrize("frontend", [LogMagnitude(16000, 400, 160), LogMel(16000, 400, 160, 80)])
def test_the_transform_has_an_inverse(frontend: LogMagnitude | LogMel) -> None:
    x = _noise(1600 * 5)
    back = frontend.waveform(frontend.spectrum(x))
    np.testing.assert_allclose(back, x[: len(back)], atol=1e-9)


def test_log_magnitude_is_all_of_the_spectrum_but_its_first_bin() -> None:
    frontend, x = LogMagnitude(16000, 400, 160), _noise()
    features, spectrum = frontend.features(x), frontend.spectrum(x)
    assert features.shape == (51, 200)
    power = frontend.power(features)
    np.testing.assert_allclose(power[:, 1:], np.abs(spectrum[:, 1:]) ** 2, rtol=1e-5)
    assert (power[:, 0] == 0).all()
    assert np.allclose(frontend.features(np.zeros(4000)), -20.0)


def test_mel_energies_survive_the_way_to_power_spectra() -> None:
    """Of noise, and of harmonics beside silence; where nothing is heard there is next to nothing."""
    frontend = LogMel(16000, 400, 160, 80)
    for x, most in ((voice(0.5), 1.0), (_noise(), 0.1)):
        spectrum = np.abs(frontend.spectrum(x)) ** 2
        power = frontend.power(frontend.features(x))
        energies, again = spectrum @ frontend.filters.T, power @ frontend.filters.T
        heard = energies > 1e-6 * energies.max()
        error = 10.0 * np.log10(again[heard] / energies[heard])
        assert float(np.sqrt(np.square(error).mean())) < most and bool((power >= 1e-10).all())
        assert power[:, 0].max() == pytest.approx(1e-10)  # 0 Hz is in no band
    assert frontend.power(np.full((1, 80), np.log(1e-10))).max() < 1e-9


def test_settings_choose_and_shape_them() -> None:
    sound = Sound(_noise(16000)[:, None], 16000)
    fbank = open_frontend(Data(frontend="fbank"), 80)
    assert fbank.features(fbank.prepare(sound)).shape[1] == fbank.dim == 80
    spectra = open_frontend(Data(frontend="log_magnitude"), 200)
    x = spectra.features(spectra.prepare(sound))
    assert x.shape[1] == spectra.dim == 200 and abs(len(x) - 101) <= 4
    assert open_frontend(Data(frontend="log_magnitude", rate=8000), 100).dim == 100
    with pytest.raises(UserError, match=r"data\.window=400 \(or null\), or model\.bins=256"):
        open_frontend(Data(frontend="log_magnitude", window=512), 200)
    with pytest.raises(UserError, match="model.bins: 200"):
        open_frontend(Data(frontend="fbank", rate=8000), 200)
    with pytest.raises(UserError, match="data.window: got 401"):
        open_frontend(Data(frontend="fbank", window=401), 80)
