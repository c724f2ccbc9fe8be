"""Metrics against hand computation, closed forms, and the figures of the published VAE."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.resynthesis import metrics
from models.likelihoods.power_spectrum import PowerSpectrum
from tests.sounds import RATE, noise, voice

Signal = NDArray[np.float64]


@pytest.mark.parametrize("decibels", [-3.0, 0.0, 17.5])
def test_si_sdr_of_signal_plus_orthogonal_noise_is_the_ratio_of_their_powers(decibels: float) -> None:
    s = voice(0.5)
    n = noise(s.size)
    n -= (n @ s) / (s @ s) * s
    n *= math.sqrt((s @ s) / (n @ n)) * 10 ** (-decibels / 20)
    assert metrics.si_sdr(s, s + n) == pytest.approx(decibels, abs=1e-9)


def test_si_sdr_by_hand() -> None:
    s, e = np.array([1.0, 2.0]), np.array([1.0, 1.0])  # a = 3/5, target (.6, 1.2), error (.4, -.2)
    assert metrics.si_sdr(s, e) == pytest.approx(10 * math.log10(1.8 / 0.2), abs=1e-12)


@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_scale_of_the_estimate_counts_in_plain_rmse_alone(scale: float) -> None:
    s = voice(1.0)
    e = s + noise(s.size)
    one, other = metrics.score(s, e, RATE), metrics.score(s, scale * e, RATE)
    for name in ("si_sdr", "rmse_scaled", "stoi", "estoi"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-7), name
    assert other.rmse_plain > 2 * one.rmse_plain


def test_rmse_by_hand() -> None:
    s, e = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    assert metrics.rmse_plain(s, e) == pytest.approx(math.sqrt(0.5))
    assert metrics.rmse_scaled(s, e) == pytest.approx(0.5)  # b = 3/2
    grid = [metrics.rmse_plain(s, b * e) for b in np.linspace(0.0, 3.0, 3001)]
    assert metrics.rmse_scaled(s, e) == pytest.approx(min(grid))


def test_itakura_saito_is_minus_log_density_up_to_terms_in_x() -> None:
    random = np.random.RandomState(0)
    x, v = random.exponential(size=(4, 7)), random.exponential(size=(4, 7))
    expected = -PowerSpectrum(torch.from_numpy(v).log()).log_prob(torch.from_numpy(x)).numpy() - np.log(x) - 1.0
    np.testing.assert_allclose(metrics.itakura_saito(x, v), expected.sum(-1), rtol=1e-12)


def test_itakura_saito_leaves_out_bins_of_no_power_and_only_those() -> None:
    x, v = np.array([[0.0, 3.0], [0.0, 0.0]]), np.array([[0.0, 1.5], [2.0, 2.0]])
    np.testing.assert_allclose(metrics.itakura_saito(x, v), [2.0 - math.log(2.0) - 1.0, 0.0], rtol=1e-14)
    assert metrics.itakura_saito(np.ones((1, 1)), np.zeros((1, 1))).item() == math.inf


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_identical_signals_have_the_best_scores_at_any_rate(rate: int) -> None:
    s = voice(2.0, rate)
    scores = metrics.score(s, s, rate)
    assert scores.pesq_wb == pytest.approx(4.644, abs=1e-3)
    assert scores.pesq_nb == pytest.approx(4.549, abs=1e-3)
    assert scores.stoi == pytest.approx(1.0) and scores.estoi == pytest.approx(1.0)
    assert (scores.rmse_scaled, scores.rmse_plain, scores.si_sdr) == (0.0, 0.0, math.inf)


def test_more_noise_scores_worse_in_every_figure() -> None:
    s = voice(2.0)
    little, much = (metrics.score(s, s + noise(s.size, scale), RATE) for scale in (0.01, 0.1))
    for name in ("si_sdr", "pesq_wb", "pesq_nb", "stoi", "estoi"):
        assert getattr(little, name) > getattr(much, name), name
    assert little.rmse_scaled < much.rmse_scaled


@pytest.mark.parametrize("samples", [1, 300, 600, 3000])
def test_what_is_too_short_has_no_pesq_and_no_stoi(samples: int) -> None:
    s = voice(1.0)[1000 : 1000 + samples]
    scores = metrics.score(s, s + noise(samples), RATE)
    assert all(math.isnan(v) for v in (scores.pesq_wb, scores.pesq_nb, scores.stoi, scores.estoi))
    assert math.isfinite(scores.rmse_plain)


def test_a_click_in_silence_has_no_pesq() -> None:
    s = np.r_[np.zeros(8000), noise(400), np.zeros(8000)]
    assert math.isnan(metrics.pesq(s, s, RATE, "wb")) and math.isnan(metrics.pesq(s, s, RATE, "nb"))


def test_silence_on_either_side_is_nan_and_no_error() -> None:
    s = voice(1.0)
    silent = np.zeros_like(s)
    assert math.isnan(metrics.score(silent, s, RATE).stoi)
    for scores in (metrics.score(silent, s, RATE), metrics.score(s, silent, RATE)):
        assert all(math.isnan(v) for v in (scores.si_sdr, scores.pesq_wb, scores.pesq_nb))


def test_an_estimate_that_is_not_finite_has_no_figures() -> None:
    s = voice(0.5)
    assert all(math.isnan(v) for v in metrics.score(s, np.where(s > 0.5, np.nan, s), RATE))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4,\), \(3,\)"):
        metrics.score(np.ones(4), np.ones(3), RATE)


def test_published_vae_figures(shared: Path) -> None:
    """The published VAE written out in numpy: every figure of its resynthesis."""
    import soundfile

    from corpora.frontends.stft import Stft
    from corpora.types import Sound

    folder = shared / "published-weights"
    weights = {k: v.astype(np.float64) for k, v in np.load(folder / "dvae-speech_vae.npz").items()}

    def linear(name: str, v: Signal) -> Signal:
        return np.asarray(v @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    def mlp(name: str, v: Signal) -> Signal:
        for layer in range(4):
            v = np.tanh(linear(f"{name}.linear{layer}", v))
        return v

    expected = json.loads((folder / "expected_dvae-speech_vae.json").read_text())["utterances"][0]
    samples, rate = soundfile.read(shared / expected["file"], always_2d=True)
    frontend = Stft(RATE, 512, 256)
    reference = frontend.prepare(Sound(samples, rate))
    spectrum = frontend.spectrum(reference)
    x = frontend.features(reference).astype(np.float64)
    log_variance = linear("gen_logvar", mlp("mlp_z_x", linear("inf_mean", mlp("mlp_x_z", x))))
    estimate = frontend.waveform(np.exp(log_variance / 2) * np.exp(1j * np.angle(spectrum)))
    want = expected["variants"]["default"]["mean_path"]["float64"]
    for name, value in metrics.score(reference[: estimate.size], estimate, RATE)._asdict().items():
        assert value == pytest.approx(want["resynthesis"][name], rel=1e-6), name
    divergence = metrics.itakura_saito(x, np.exp(log_variance))
    assert divergence.mean() == pytest.approx(want["losses"]["is_per_frame"], rel=1e-9)
