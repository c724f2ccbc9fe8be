"""Griffin and Lim's algorithm against librosa's, and against sounds whose spectra are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from corpora.frontends.fbank import LogMagnitude
from corpora.frontends.griffin_lim import griffin_lim, transform
from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from tests.sounds import RATE, Signal, voice

FRONT = Stft(RATE, 256, 64)


def power_of(*sounds: Signal) -> Tensor:
    return torch.from_numpy(np.stack([np.abs(FRONT.spectrum(s)) ** 2 for s in sounds]))


def sounds() -> list[Signal]:
    return [voice(0.5), np.flip(voice(0.5)).copy()]


def error_db(waveforms: Tensor, power: Tensor) -> list[float]:
    """Spectral convergence by the front end's own transform: |S - |STFT(y)|| / |S| in dB."""
    found = []
    for samples, spectrum in zip(waveforms.numpy(), power.numpy(), strict=True):
        amplitude = np.sqrt(spectrum)
        apart = np.linalg.norm(np.abs(FRONT.spectrum(samples)) - amplitude) / np.linalg.norm(amplitude)
        found.append(20.0 * float(np.log10(apart)))
    return found


def test_the_transform_is_the_front_ends() -> None:
    for samples in sounds():
        ours = transform(torch.from_numpy(samples)[None], FRONT)[0]
        np.testing.assert_allclose(ours.numpy(), FRONT.spectrum(samples), atol=1e-10)


def test_without_an_iteration_it_inverts_the_phase_at_the_start() -> None:
    """And that inverse is `Stft.waveform`'s, but for the last of its overlap."""
    power = power_of(*sounds())
    made = griffin_lim(power, FRONT, iterations=0, seed=3)
    turns = torch.rand(power.shape[2], power.shape[1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    phase = np.exp(2j * np.pi * turns.T.numpy())
    for samples, spectrum in zip(made.numpy(), power.numpy(), strict=True):
        expected = FRONT.waveform(np.sqrt(spectrum) * phase)
        assert samples.shape == expected.shape == ((len(spectrum) - 1) * FRONT.hop,)
        np.testing.assert_allclose(samples, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_it_is_librosas(momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    import librosa

    power = power_of(sounds()[0])
    turns = torch.rand(power.shape[2], power.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class Fixed(np.random.RandomState):
        def random(self, size: object = None) -> object:  # type: ignore[override]  # a stand-in for numpy's generator
            return turns[None].numpy()

    theirs = librosa.griffinlim(
        np.sqrt(power.numpy()).transpose(0, 2, 1),
        n_iter=10,
        hop_length=64,
        n_fft=256,
        window=FRONT.taper,
        pad_mode="reflect",
        momentum=momentum,
        random_state=Fixed(),
        dtype=np.float64,
    )
    ours = griffin_lim(power, FRONT, iterations=10, momentum=momentum)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


def test_every_iteration_of_1984_brings_the_spectra_nearer() -> None:
    """But for the frames that hold reflected samples, which are no transform of a signal that could be inverted."""
    power = power_of(*sounds())
    errors = np.array([error_db(griffin_lim(power, FRONT, k, 0.0), power) for k in range(12)])
    assert bool((np.diff(errors, axis=0) < 0.0).all())


def test_true_spectra_are_matched() -> None:
    power = power_of(*sounds())
    made = griffin_lim(power, FRONT, 100)
    assert max(error_db(made, power)) < -19.0
    assert max(error_db(griffin_lim(power.float(), FRONT, 100).double(), power)) < -19.0


def test_a_front_end_with_pre_emphasis_gets_its_waveform_back() -> None:
    front = LogMagnitude(RATE, 256, 64)
    samples = voice(0.5)
    power = torch.from_numpy(front.power(front.features(samples)))
    made = griffin_lim(power[None], front, 100)[0].numpy()
    amplitude = power.sqrt().numpy()
    assert np.linalg.norm(np.abs(front.spectrum(made)) - amplitude) < 0.15 * np.linalg.norm(amplitude)


def test_files_do_not_depend_on_each_other() -> None:
    power = power_of(*sounds())
    together = griffin_lim(power.repeat(10, 1, 1), FRONT, 5)  # more than go through it at once
    assert len(together) == 20
    for i in (0, 1):
        alone = griffin_lim(power[i : i + 1], FRONT, 5)[0]
        torch.testing.assert_close(together[i::2], alone.expand(10, -1))


def test_silence_stays_silent() -> None:
    assert float(griffin_lim(torch.zeros(1, 9, 129), FRONT, 3).abs().max()) == 0.0


@pytest.mark.parametrize(
    ("power", "message"),
    [(torch.ones(1, 1, 129), " frame.* 2 "), (-torch.ones(1, 4, 129), " -1 .*-1.*model.likelihood=power_spectrum")],
)
def test_what_is_no_spectrum_is_refused(power: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        griffin_lim(power, FRONT)
