"""STCN, and the posteriors of ladders: products of Gaussians, and the one choice between two guides."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch

from dvae_pyro.errors import UserError
from guides.core.ladder import precision_weighted
from guides.registry import guide_class
from inference.handlers.given_noise import given_noise
from inference.handlers.noise import NumberedNoise
from inference.prediction.generation import generate
from models.ms_stcn import LEAST, MOST, bounded_normal
from models.registry import build_model
from models.stcn import STCNSettings
from tests.pairs import LENGTHS, data, latents, small_pair, traced


def test_the_product_of_two_gaussians_is_what_a_grid_gives() -> None:
    torch.manual_seed(0)
    grid = torch.linspace(-30.0, 30.0, 60_001, dtype=torch.float64)[:, None]
    parts = [bounded_normal(*torch.randn(2, 1, 4, dtype=torch.float64)) for _ in range(2)]
    density = (parts[0].base_dist.log_prob(grid) + parts[1].base_dist.log_prob(grid)).exp()
    weights = density / density.sum(0)
    mean = (weights * grid).sum(0)
    found = precision_weighted(*parts)
    torch.testing.assert_close(found.mean[0], mean)
    torch.testing.assert_close(found.variance[0], (weights * (grid - mean).square()).sum(0))


@pytest.mark.parametrize("variant", ["stcn", "ms_stcn"])
def test_the_guides_of_a_ladder_differ_by_the_prior(variant: str) -> None:
    """With the same weights, log q of the one is log q of the other plus log p, up to what is constant in z."""
    weighted, independent = (small_pair(variant, guide) for guide in ("precision", "independent"))
    for a, b in zip(weighted.guide.heads.parameters(), independent.guide.heads.parameters(), strict=True):  # type: ignore[union-attr]  # attributes of a Module
        assert torch.equal(a, b)
    x = data()
    values = latents(weighted, x, LENGTHS)
    programs = (weighted.guide, independent.guide, weighted.model)
    q, told, p = (traced(poutine.condition(program, values), x, LENGTHS) for program in programs)
    for site, value in values.items():
        of_q, of_told, of_p = (_plain(trace.nodes[site]["fn"]) for trace in (q, told, p))
        real = q.nodes[site]["fn"]._mask  # beyond its own steps a sequence has no features that guide and model share
        constant = [of_q.log_prob(z) - of_told.log_prob(z) - of_p.log_prob(z) for z in (value, torch.sin(value) + 1.0)]
        torch.testing.assert_close(constant[0][real], constant[1][real])
        assert bool((of_q.variance < of_p.variance)[real].all())


def _plain(distribution: Any) -> Any:
    return distribution.base_dist if hasattr(distribution, "_mask") else distribution


def test_deviations_have_bounds() -> None:
    o = torch.tensor([-1e3, 0.0, 1e3])
    found = bounded_normal(torch.zeros(3), o).stddev
    torch.testing.assert_close(found, torch.tensor([LEAST, 0.6931472, MOST]))


def test_a_guide_of_ladders_is_refused_elsewhere() -> None:
    with pytest.raises(UserError, match="guide 'precision' .*model 'dkf'"):
        guide_class("dkf", "precision")
    assert guide_class("stcn", "paper") is guide_class("stcn", "independent")


def test_no_guide_of_stcn_sees_the_future_that_its_posterior_needs() -> None:
    with pytest.raises(UserError, match="'stcn'.*--guide paper"):
        guide_class("stcn", "compliant")


def test_the_decoder_sees_the_data_through_the_latents_alone() -> None:
    pair = small_pair("stcn")
    x = data().requires_grad_()
    values = latents(pair, x, LENGTHS)
    mean = traced(poutine.condition(pair.model, values), x, LENGTHS).nodes["x"]["fn"].mean
    assert torch.autograd.grad(mean.sum(), x, allow_unused=True)[0] is None


def test_generated_from_what_convolutions_remember_is_generated_from_all_of_the_past() -> None:
    """Frame by frame, against a pass over all of the frames so generated that draws the latents with the same noise."""
    model = small_pair("stcn").model.float()
    x, z = generate(model, 3, 12, seed=5)
    with torch.no_grad(), given_noise(NumberedNoise(5, 0, 3)):
        trace = traced(model, x, torch.full((3,), 12))
    for name, value in z.items():
        torch.testing.assert_close(value, trace.nodes[name]["value"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x, trace.nodes["x"]["fn"].mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"z_dims": [2]}, r"model\.z_dims .* 1 .*model\.widths .* 3"), ({"widths": []}, r"model\.widths.*empty")],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(STCNSettings(**wrong))
