"""Densities integrate to one, samples follow them, and Itakura-Saito is minus the log-density up to terms
in x.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from dvae_pyro.errors import UserError
from models.dvae import ModelSettings
from models.likelihoods.base import LogFloor, head
from models.likelihoods.power_spectrum import FlooredSpectrum, PowerSpectrum, PowerSpectrumHead, itakura_saito
from models.registry import build_model, model_class


def _settings(likelihood: str, **more: Any) -> ModelSettings:
    return ModelSettings(likelihood=likelihood, **more)


def test_power_spectrum_is_a_density() -> None:
    log_variance = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    grid = torch.linspace(0.0, 60.0, 200_001, dtype=torch.float64)[:, None] * log_variance.exp()
    mass = torch.trapezoid(PowerSpectrum(log_variance).log_prob(grid).exp(), grid, dim=0)
    torch.testing.assert_close(mass, torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)


def test_power_spectrum_is_the_power_of_a_complex_gaussian() -> None:
    """Change of variables: the density of |s|^2 from that of s, uniform in phase."""
    v, x = torch.tensor(3.0, dtype=torch.float64), torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    log_density_of_s = -torch.log(torch.pi * v) - x / v
    log_area_per_power = torch.log(torch.tensor(torch.pi, dtype=torch.float64))
    torch.testing.assert_close(PowerSpectrum(v.log()).log_prob(x), log_density_of_s + log_area_per_power)


def test_samples_have_the_mean_and_variance_of_the_density() -> None:
    p = PowerSpectrum(torch.tensor([-1.0, 1.5], dtype=torch.float64))
    x = p.rsample(torch.Size([200_000]))
    # five standard errors: fails by chance once in a million runs, and the seed is fixed
    error = 5.0 * (p.variance / len(x)).sqrt()
    assert bool(((x.mean(0) - p.mean).abs() < error).all())
    assert bool(((x.var(0) / p.variance - 1.0).abs() < 5.0 * (8.0 / len(x)) ** 0.5).all())


def test_minus_log_density_is_itakura_saito() -> None:
    x, v = torch.rand(2, 100, dtype=torch.float64).unbind()
    torch.testing.assert_close(-PowerSpectrum(v.log()).log_prob(x), itakura_saito(x, v) + x.log() + 1.0)
    assert bool((itakura_saito(x, v) >= 0).all()) and float(itakura_saito(x, x).abs().max()) < 1e-15


def test_digital_silence_has_a_finite_density_under_a_floor() -> None:
    layer = PowerSpectrumHead(1, 1, variance_floor=1e-10)
    torch.nn.init.zeros_(layer.affine.weight)
    torch.nn.init.constant_(layer.affine.bias, -1000.0)
    p = layer(torch.zeros(1, 1))
    assert p.base_dist.mean.item() == pytest.approx(1e-10)
    assert p.log_prob(torch.zeros(1, 1)).item() == pytest.approx(23.02585, rel=1e-6)
    gradient = torch.autograd.grad(p.log_prob(torch.zeros(1, 1)).sum(), layer.affine.bias)[0]
    assert bool(torch.isfinite(gradient).all())


def test_a_floor_is_added_to_the_variance() -> None:
    torch.manual_seed(0)
    h = torch.randn(5, 4, dtype=torch.float64)
    bare, floored = PowerSpectrumHead(4, 3).double(), PowerSpectrumHead(4, 3, 0.25).double()
    floored.load_state_dict(bare.state_dict())
    torch.testing.assert_close(floored(h).base_dist.mean, bare(h).base_dist.mean + 0.25)


def test_negative_power_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="support"):
        PowerSpectrum(torch.zeros(1), validate_args=True).log_prob(torch.tensor([-1.0]))
    with pytest.raises(UserError, match="'power_spectra'.*'power_spectrum'"):
        head(_settings("power_spectra"), 3)


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_gaussian_output_scores_by_the_formula(floor: float) -> None:
    torch.manual_seed(0)
    layer = head(_settings("gaussian", bins=2, variance_floor=floor), 3).double()
    h, x = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    outputs = h @ layer.affine.weight.T + layer.affine.bias  # type: ignore[union-attr, operator]  # of a Module
    mean, variance = outputs[:, :2], outputs[:, 2:].exp() + floor
    expected = (-0.5 * ((x - mean) ** 2 / variance + torch.log(2 * torch.pi * variance))).sum(-1)
    torch.testing.assert_close(layer(h).log_prob(x), expected)


def test_bernoulli_head_sums_to_one_over_all_frames() -> None:
    torch.manual_seed(0)
    h = torch.randn(3, dtype=torch.float64)
    p = head(_settings("bernoulli", bins=4), 3).double()(h)
    frames = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    mass = p.log_prob(frames).exp()
    torch.testing.assert_close(mass.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(mass @ frames, p.mean)


@pytest.mark.parametrize(("likelihood", "low"), [("power_spectrum", -1.0), ("bernoulli", 0.5), ("gaussian", math.nan)])
@pytest.mark.parametrize("kind", ["standard", "raw"])
def test_data_without_a_density_are_refused(likelihood: str, low: float, kind: str) -> None:
    model = build_model(model_class("vae").Settings(name="vae", bins=2, likelihood=likelihood, input=kind))
    model.fit_input([torch.tensor([[0.0, 1.0]])])
    with pytest.raises(UserError, match=f"model.likelihood={likelihood}"):
        model.fit_input([torch.tensor([[0.0, 1.0], [low, 1.0]])])


def test_no_logarithm_of_what_may_be_negative() -> None:
    with pytest.raises(UserError, match="model.input=standard"):
        build_model(model_class("vae").Settings(name="vae", likelihood="gaussian"))


@pytest.mark.parametrize("floor", [0.0, 1e-10, 0.25])
@pytest.mark.parametrize("leading", [(), (3,)])
def test_the_density_in_one_pass_is_that_of_the_bins(
    floor: float, leading: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, gradients and their gradients, in blocks that end within a sequence, with and without particles."""
    monkeypatch.setattr("models.likelihoods.power_spectrum.BLOCK", 12)
    o = 3.0 * torch.randn(*leading, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    o.requires_grad_()
    x = torch.rand(4, 3, 5, dtype=torch.float64).exp()
    x[0, 0, 0] = 0.0
    spectrum = FlooredSpectrum(o, LogFloor(floor))
    expected = dist.Independent(PowerSpectrum(LogFloor(floor)(o)), 1)
    assert spectrum.batch_shape == expected.batch_shape and spectrum.event_shape == expected.event_shape
    assert spectrum.has_rsample and torch.equal(spectrum.mean, expected.mean)
    weights = torch.rand(*leading, 4, 3, dtype=torch.float64)
    found = []
    for p in (spectrum, spectrum.expand((*leading, 4, 3)), expected):
        density = p.log_prob(x)
        (gradient,) = torch.autograd.grad((weights * density).sum(), o, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), o)
        found.append((density, gradient, second))
    for each in found[:2]:
        for one, other in zip(each, found[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    if not leading:
        assert torch.autograd.gradcheck(lambda v: FlooredSpectrum(v, LogFloor(floor)).log_prob(x), o)


def test_the_density_in_one_pass_is_finite_where_exp_is_not_and_checks_what_it_is_given() -> None:
    o = torch.tensor([[-200.0, 100.0, 300.0]], requires_grad=True)
    x = torch.tensor([[0.0, 1.0, 2.0]])
    density = FlooredSpectrum(o, LogFloor(1e-10)).log_prob(x)
    torch.testing.assert_close(density, -torch.tensor([math.log(1e-10) + 400.0]))
    (gradient,) = torch.autograd.grad(density.sum(), o)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -1.0, -1.0]]))
    with pytest.raises(ValueError, match="support"):
        FlooredSpectrum(o, LogFloor(1e-10)).log_prob(-x)
    x = x.clone().requires_grad_()
    FlooredSpectrum(o, LogFloor(1e-10)).log_prob(x).sum().backward()
    assert x.grad is not None and bool((x.grad <= 0).all())
