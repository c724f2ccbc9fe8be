"""Free bits by their formulas: value and gradient, for every grouping, with ragged lengths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference.handlers.free_bits import GROUPINGS, free_bits
from inference.handlers.given_noise import given_noise
from inference.handlers.kl_scale import kl_scale
from inference.objectives.elbo import Objective
from inference.settings.tree import FreeBitsSettings
from inference.training.schedules import free_bits_threshold
from tests.pairs import LENGTHS, Pair, data, noise, parameters, small_pair, traced

MASK = (torch.arange(7)[:, None] < LENGTHS)[..., None]


def _kl(pair: Pair, fixed: dict[str, Tensor]) -> Tensor:
    """KL of the VAE's latent, element by element, by the formula of two Gaussians: (T, N, L), zero in padding."""
    with given_noise(fixed):
        q = traced(pair.guide, data(), LENGTHS).nodes["z"]["fn"].base_dist
    mean, variance = q.base_dist.loc, q.base_dist.scale.square()
    kl: Tensor = 0.5 * (mean.square() + variance - variance.log() - 1.0) * MASK
    return kl


@pytest.mark.parametrize("mode", ["linear", "constant"])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_value_and_gradient_are_those_of_the_formula(grouping: str, mode: str) -> None:
    pair = small_pair("vae")
    fixed = noise(pair)
    objective = Objective(pair.model, pair.guide, "analytic")
    kl = _kl(pair, fixed)
    axes = {"element": (), "channel": (2,), "sequence": (0,), "layer": (0, 2)}[grouping]
    part = kl.sum(axes, keepdim=True) if axes else kl
    real = part[part > 0].detach()
    threshold = 1.001 * float(real.median())  # no part lies on it
    assert bool((real < threshold).any()) and bool((real >= threshold).any())
    if mode == "linear":
        expected = (part.detach() / threshold).clamp(max=1.0) * part
    else:
        expected = torch.where(part >= threshold, part, torch.zeros_like(part))
    weights = list(pair.guide.parameters())
    with given_noise(fixed):
        plain = objective(data(), LENGTHS)
    gradients = torch.autograd.grad(plain.loss - kl.sum() + expected.sum(), weights, allow_unused=True)
    with given_noise(fixed), free_bits(threshold, mode, grouping):
        bound = objective(data(), LENGTHS)
    torch.testing.assert_close(bound.loss, plain.loss - kl.sum() + expected.sum())
    for got, wanted in zip(torch.autograd.grad(bound.loss, weights), gradients, strict=True):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(bound.terms.elbo, plain.terms.elbo)
    torch.testing.assert_close(bound.terms.kl["z"], plain.terms.kl["z"])


@pytest.mark.parametrize("name", ["vae", "dkf", "dsae", "ms_stcn"])
@pytest.mark.parametrize("objective", ["elbo", "analytic"])
def test_no_threshold_changes_nothing_and_a_high_one_spares_the_kl(name: str, objective: str) -> None:
    pair = small_pair(name)
    program = Objective(pair.model, pair.guide, objective)
    found = []
    for handler in (kl_scale(1.0), free_bits(0.0), free_bits(1e12, "constant"), kl_scale(0.0)):
        torch.manual_seed(0)
        with handler:
            found.append(program(data(), LENGTHS))
    torch.testing.assert_close(found[0].loss, found[1].loss)
    torch.testing.assert_close(found[2].loss, found[3].loss)
    for bound in found[1:]:
        torch.testing.assert_close(bound.terms.elbo, found[0].terms.elbo)


def test_every_interpreter_gives_the_same() -> None:
    pair = small_pair("dkf")
    objective = Objective(pair.model, pair.guide, "analytic")
    losses = []
    for how in ("auto", "looped", "stepwise"):
        with given_noise(noise(pair)), free_bits(0.2):
            losses.append(objective(data(), LENGTHS, how=how).loss)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


def test_every_parameter_still_gets_a_gradient() -> None:
    pair = small_pair("ms_stcn")
    with free_bits(0.5):
        Objective(pair.model, pair.guide)(data(), LENGTHS).loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in parameters(pair).values())


def test_the_threshold_halves() -> None:
    settings = FreeBitsSettings(threshold=0.5, halve_every=300_000)
    assert free_bits_threshold(settings, 600_000) == 0.125
    assert free_bits_threshold(FreeBitsSettings(), 5) is None


def test_words_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold = -1\.0"):
        free_bits(-1.0)
    with pytest.raises(ValueError, match="'frame'.*element"):
        free_bits(1.0, grouping="frame")
    with pytest.raises(ValueError, match="'soft'.*linear"):
        free_bits(1.0, mode="soft")
