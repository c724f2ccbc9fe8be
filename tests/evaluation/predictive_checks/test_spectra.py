"""Energy, tilt and pauses against signals made to have them."""

from __future__ import annotations

import numpy as np
import pytest

from corpora.frontends.stft import Stft
from evaluation.predictive_checks.spectra import STATISTICS, Tracks, energy_db, pause_runs, pauses, statistics, tilt_db


def octaves(db_per_octave: float, bins: int = 257, rate: float = 16000.0) -> np.ndarray:
    """A spectrum whose power is the same within an octave band below rate/2, and falls from band to band."""
    hertz = np.linspace(0.0, rate / 2, bins)
    band = np.ceil(np.log2(np.maximum(hertz, 1.0) / (rate / 2)) - 1e-9)
    return np.asarray(10.0 ** (0.1 * db_per_octave * band))


@pytest.mark.parametrize("slope", [-6.0, 0.0, 2.5])
def test_tilt_is_the_slope_of_octave_bands_whatever_the_gain(slope: float) -> None:
    x = np.stack([octaves(slope), 1e-3 * octaves(slope)])
    np.testing.assert_allclose(tilt_db(x, 16000.0), slope, atol=1e-9)


def test_tilt_of_noise_through_a_filter_of_six_db_per_octave() -> None:
    noise = np.random.default_rng(0).standard_normal(64000)
    power = Stft(16000, 512, 256, None).features(np.cumsum(noise)).astype(np.float64)  # an integrator: -6 dB
    assert float(tilt_db(power, 16000.0).mean()) == pytest.approx(-6.0, abs=0.6)


def test_too_few_bins_have_no_tilt() -> None:
    with pytest.raises(ValueError, match="2 bins"):
        tilt_db(np.ones((1, 2)), 16000.0)


def test_energy_in_decibels() -> None:
    np.testing.assert_allclose(energy_db(np.array([[4.0, 6.0], [0.5, 0.5]])), [10.0, 0.0])


def test_pauses_of_a_hand_made_signal() -> None:
    """1 s of noise with silences of 0.1 and 0.25 s: frames of 10 ms whose window lies inside them are pauses."""
    rate, hop, window = 16000, 160, 320
    sound = np.random.default_rng(1).standard_normal(rate)
    sound[3200:4800] *= 1e-3
    sound[8000:12000] *= 1e-3
    energy = energy_db(Stft(rate, window, hop, None).features(sound).astype(np.float64))
    starts, lengths = pause_runs(pauses(energy))
    # frame t is centred at t * hop, and half a window of 10 ms reaches to either side
    assert list(starts) == [21, 51] and list(lengths) == [9, 24]


def test_statistics_of_two_utterances_by_hand() -> None:
    energy = np.array([[0.0, -40.0, -40.0, 0.0, -35.0, 10.0, 10.0, -21.0]])  # utterances of 5 and 3 frames
    tilt = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 3.0, 0.0]])
    found = statistics(Tracks(energy, tilt), (5, 3), 0.01)
    assert list(found) == list(STATISTICS)
    one = {name: float(value[0]) for name, value in found.items()}
    assert one["energy_mean"] == pytest.approx(energy.mean())
    assert one["energy_change"] == pytest.approx((40 + 0 + 40 + 35 + 0 + 31) / 6)
    assert one["tilt_spread"] == pytest.approx((np.sqrt(2.0) + np.sqrt(2.0)) / 2)
    assert one["tilt_change"] == pytest.approx((4 + 3 + 3) / 6)
    assert one["pause_share"] == pytest.approx(100 * 4 / 8)  # frames 2, 3, 5 and, 31 dB below 10, the last
    assert one["pause_rate"] == pytest.approx(3 / 0.08)
    assert one["pause_mean"] == pytest.approx(1000 * 0.01 * 4 / 3)
    assert one["pause_longest"] == pytest.approx(1000 * 0.01 * (2 + 1) / 2)


def test_the_mean_of_no_pause_does_not_exist() -> None:
    found = statistics(Tracks(np.zeros((2, 4)), np.zeros((2, 4))), (4,), 0.01)
    assert np.isnan(found["pause_mean"]).all() and (found["pause_share"] == 0.0).all()
