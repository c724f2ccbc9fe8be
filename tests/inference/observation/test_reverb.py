"""Reverberant speech against dense Gaussians, and its limits: no reverberation, padding, several draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference.observation.base import ObservedPower
from inference.observation.noise import NoiseParameters
from inference.observation.reverb import Reverb, initial_reverb

FRAMES, BINS, LENGTHS = 9, 3, (9, 6)


def _case(taps: int, learns: str = "") -> tuple[Reverb, Tensor, Tensor, Tensor]:
    """An observation of two sequences, v (T, N, F), |y|^2 and the mask."""
    torch.manual_seed(taps)
    torch.set_default_dtype(torch.float64)
    mask = torch.arange(FRAMES)[:, None] < torch.tensor(LENGTHS)
    y = torch.randn(FRAMES, 2, BINS, dtype=torch.complex128) * mask[..., None]
    v = torch.rand(FRAMES, 2, BINS) + 0.1
    h = torch.randn(2, BINS, taps, dtype=torch.complex128)
    h[..., 0] = 1.0
    noise = NoiseParameters(torch.rand(2, BINS, 1) + 0.1, torch.ones(2, 1, FRAMES), torch.rand(2, 1, FRAMES) + 0.5)
    return Reverb(y, noise, h, learns, floor=0.01), v, y.abs().square(), mask


def _convolution(h: Tensor, frames: int) -> Tensor:
    """The dense matrix of a convolution (T, T)."""
    t = torch.arange(frames)
    lag = t[:, None] - t
    return torch.where((lag >= 0) & (lag < len(h)), h[lag.clamp(0, len(h) - 1)], 0.0)


def _dense(observation: Reverb, v: Tensor, n: int, f: int) -> tuple[Tensor, Tensor, Tensor]:
    """log p(y | z) up to log pi, mean and covariance of s, from the joint Gaussian of a band."""
    length = LENGTHS[n]
    y, matrix = observation.spectrum[:length, n, f], _convolution(observation.taps[n, f], length)
    u = (observation.parameters.g[n, 0, :length] * v[:length, n, f]).to(y.dtype)
    noise = (observation.parameters.w[n, f, 0] + observation.floor) * torch.eye(length)
    covariance = matrix @ u.diag() @ matrix.mH + noise
    gain = u.diag() @ matrix.mH @ covariance.inverse()
    log_density = -covariance.logdet().real - (y.conj() @ covariance.inverse() @ y).real
    return log_density, gain @ y, u.diag() - gain @ matrix @ u.diag()


@pytest.mark.parametrize("taps", [1, 4, 12])
def test_density_gradient_and_posterior_are_those_of_the_dense_gaussian(taps: int) -> None:
    observation, v, y, mask = _case(taps)
    v.requires_grad_()
    found = observation.likelihood([v], y, mask, slice(None))
    total = (found.log_prob(y) * mask).sum()
    dense = [[_dense(observation, v, n, f) for f in range(BINS)] for n in (0, 1)]
    expected = torch.stack([density for row in dense for density, _, _ in row]).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, v)[0] for value in (total, expected)))
    for n, f in ((0, 0), (1, 2)):
        _, mean, covariance = dense[n][f]
        torch.testing.assert_close(found.speech[: LENGTHS[n], n, f], mean.detach())
        torch.testing.assert_close((found.wiener() * observation.spectrum)[: LENGTHS[n], n, f], mean.detach())
        power = mean.abs().square() + covariance.diagonal().real
        torch.testing.assert_close(found.power[: LENGTHS[n], n, f], power.detach())


def test_one_tap_is_the_model_of_noise() -> None:
    observation, v, y, mask = _case(1)
    found = observation.likelihood([v], y, mask, slice(None))
    u = observation.parameters.gains()[0] * v
    noise = ObservedPower([u], observation.parameters.variance() + 0.01)
    torch.testing.assert_close(found.log_prob(y)[mask], noise.log_prob(y)[mask])
    gain = torch.where(mask[..., None], noise.wiener(), 0.0)
    torch.testing.assert_close(found.wiener(), gain.to(torch.complex128))


def test_the_m_step_is_the_maximum_of_the_dense_expectation_and_raises_the_likelihood() -> None:
    observation, v, y, mask = _case(4, learns="hng")
    before = Reverb(observation.spectrum, observation.parameters, observation.taps, floor=0.01)
    old = (before.likelihood([v], y, mask, slice(None)).log_prob(y) * mask).sum()
    observation.likelihood([v], y, mask, slice(None))
    for n, length in enumerate(LENGTHS):
        for f in range(BINS):
            _, mean, covariance = _dense(before, v, n, f)
            y_f, second = before.spectrum[:length, n, f], covariance + torch.outer(mean, mean.conj())
            shifts = [_convolution(torch.eye(4, dtype=y_f.dtype)[p], length) for p in range(4)]
            # E |y - sum_p h_p S_p s|^2 over the lags S_p
            a = torch.stack([torch.stack([(q @ second @ p.mH).trace() for q in shifts]) for p in shifts])
            b = torch.stack([(p @ mean).conj() @ y_f for p in shifts])
            h = torch.cat([torch.ones(1, dtype=y_f.dtype), torch.linalg.solve(a[1:, 1:], b[1:] - a[1:, 0])])
            torch.testing.assert_close(observation.taps[n, f], h, rtol=1e-4, atol=1e-5)  # the ridge
            matrix = _convolution(observation.taps[n, f], length)
            error = (y_f - matrix @ mean).abs().square().sum() + (matrix @ covariance @ matrix.mH).trace().real
            torch.testing.assert_close(observation.parameters.w[n, f, 0], (error / length - 0.01).clamp_min(0.0))
        powers = [_dense(before, v, n, f)[1].abs().square() + _dense(before, v, n, f)[2].diagonal().real
                  for f in range(BINS)]  # fmt: skip
        g = (torch.stack(powers, dim=-1) / v[:length, n]).mean(-1)
        torch.testing.assert_close(observation.parameters.g[n, 0, :length], g)
    for _ in range(3):
        new = (observation.likelihood([v], y, mask, slice(None)).log_prob(y) * mask).sum()
        assert float(new) > float(old)
        old = new


def test_several_draws_of_z_have_their_own_posteriors_and_share_the_parameters() -> None:
    observation, v, y, mask = _case(3)
    both = torch.stack([v, 2.0 * v + 0.1])
    found = observation.likelihood([both], y, mask.expand(2, -1, -1), slice(None))
    for k in (0, 1):
        alone = observation.likelihood([both[k]], y, mask, slice(None))
        torch.testing.assert_close(found.log_prob(y)[k][mask], alone.log_prob(y)[mask])
        torch.testing.assert_close(found.speech[k], alone.speech)
    one, two = (Reverb(observation.spectrum, observation.parameters, observation.taps, "hng") for _ in range(2))
    one.likelihood([v], y, mask, slice(None))
    two.likelihood([torch.stack([v, v])], y, mask, slice(None))
    torch.testing.assert_close(one.taps, two.taps)
    torch.testing.assert_close(one.parameters, two.parameters)


def test_the_room_is_found_from_known_speech_variances() -> None:
    """Speech with strongly varying v in 400 frames, and little noise: h within a few percent after 60 steps."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    frames = 400
    v = torch.exp(3.0 * torch.randn(frames, 1, 2))
    h = torch.tensor([[[1.0, 0.5j, -0.3, 0.1], [1.0, 0.4, 0.2j, 0.0]]], dtype=torch.complex128)
    s = torch.randn(frames, 1, 2, dtype=torch.complex128) * v.sqrt()
    clean = torch.stack([_convolution(h[0, f], frames) @ s[:, 0, f] for f in (0, 1)], dim=-1)[:, None]
    y = clean + 0.1 * torch.randn_like(s)
    power = y.abs().square()
    start, taps = initial_reverb(power, torch.tensor([frames]), 4)
    observation = Reverb(y, start, taps, "hn")
    for _ in range(60):
        found = observation.likelihood([v], power, None, slice(None))
    assert float((observation.taps - h).abs().max()) < 0.05
    torch.testing.assert_close(observation.parameters.w, torch.full((1, 2, 1), 0.01), rtol=0.5, atol=0.0)
    error = (found.wiener() * y - s).abs().square().sum() / s.abs().square().sum()
    assert float(error) < 0.01 < 0.1 < float((y - s).abs().square().sum() / s.abs().square().sum())
