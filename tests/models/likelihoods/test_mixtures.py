"""Mixtures and pen strokes: densities by brute force, and samples that follow just those densities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from inference.objectives.elbo import Objective
from models.core.sites import stacked
from models.dvae import ModelSettings
from models.likelihoods.base import head
from models.likelihoods.mixtures import ChannelMixture, FrameMixture
from models.likelihoods.pen import PenStroke
from tests.pairs import LENGTHS, small_pair

K, D, DRAWS = 3, 2, 200_000


def _parameters(*batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, means, o = (torch.randn(*batch, n, generator=generator, dtype=torch.float64) for n in (K, K * D, K * D))
    return logits, 2.0 * means, (0.3 * o).exp()


def test_one_component_for_a_frame_scores_by_the_sum() -> None:
    logits, means, scales = _parameters(4)
    x = torch.randn(4, D, dtype=torch.float64)
    weights = logits.softmax(-1)
    total = torch.zeros(4, dtype=torch.float64)
    for k in range(K):
        part = torch.distributions.Normal(means[:, k * D : (k + 1) * D], scales[:, k * D : (k + 1) * D])
        total += weights[:, k] * part.log_prob(x).sum(-1).exp()
    torch.testing.assert_close(FrameMixture(logits, means, scales).log_prob(x), total.log())


def test_one_component_for_a_channel_scores_by_the_product_of_sums() -> None:
    logits, means, scales = _parameters(4)
    x = torch.randn(4, D, dtype=torch.float64)
    total = torch.ones(4, dtype=torch.float64)
    for d in range(D):
        parts = torch.distributions.Normal(means[:, d::D], scales[:, d::D]).log_prob(x[:, d : d + 1]).exp()
        total *= (logits.softmax(-1) * parts).sum(-1)
    torch.testing.assert_close(ChannelMixture(logits, means, scales).log_prob(x), total.log())


@pytest.mark.parametrize("kind", [FrameMixture, ChannelMixture])
def test_samples_follow_the_density(kind: type[FrameMixture]) -> None:
    """The share of samples in each quadrant against the density summed over a grid; the two mixtures differ there."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 0.7], dtype=torch.float64)
    means = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    p = kind(logits, means, torch.full((4,), 0.5, dtype=torch.float64))
    x = p.sample(torch.Size([DRAWS]))
    assert x.shape == (DRAWS, 2)
    axis = torch.arange(-5.0, 5.0, 0.05, dtype=torch.float64) + 0.025
    grid = torch.cartesian_prod(axis, axis)
    mass = p.log_prob(grid).exp() * 0.05**2
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-6)
    for quadrant in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        sign = torch.tensor(quadrant, dtype=torch.float64)
        expected = float(mass[(grid * sign > 0).all(-1)].sum())
        got = float((x * sign > 0).all(-1).double().mean())
        assert abs(got - expected) < 5 * (expected * (1 - expected) / DRAWS) ** 0.5 + 1e-6, quadrant
    torch.testing.assert_close(x.mean(0), p.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.var(0), p.variance, atol=0.02, rtol=0)


def test_a_pen_stroke_scores_by_its_formula() -> None:
    logits, means, scales = _parameters(4)
    rho = torch.tanh(logits.flip(-1))
    pen = torch.randn(4, 1, dtype=torch.float64)
    x = torch.cat([torch.randn(4, 2), torch.tensor([[0.0], [1.0], [1.0], [0.0]])], dim=-1).double()
    p = PenStroke(logits, means, scales, rho, pen)
    for n in range(4):
        place = torch.zeros((), dtype=torch.float64)
        for k in range(K):
            a, b = scales[n, 2 * k : 2 * k + 2]
            covariance = torch.stack([a * a, rho[n, k] * a * b, rho[n, k] * a * b, b * b]).reshape(2, 2)
            part = MultivariateNormal(means[n, 2 * k : 2 * k + 2], covariance)
            place = place + logits[n].softmax(-1)[k] * part.log_prob(x[n, :2]).exp()
        lifted = pen[n, 0].sigmoid() if x[n, 2] == 1 else 1 - pen[n, 0].sigmoid()
        torch.testing.assert_close(p.log_prob(x)[n], (place * lifted).log())


def test_pen_strokes_have_the_moments_of_their_density() -> None:
    torch.manual_seed(1)
    rho, pen = torch.tensor([0.8], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    one = torch.zeros(1, dtype=torch.float64)
    means, scales = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, -2.0], [0.5, 2.0]))
    p = PenStroke(one, means, scales, rho, pen)
    x = p.sample(torch.Size([DRAWS]))
    torch.testing.assert_close(x.mean(0), p.mean, atol=0.03, rtol=0)
    expected = torch.tensor([[0.25, 0.8], [0.8, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(torch.cov(x[:, :2].T), expected, atol=0.06, rtol=0)
    assert set(x[:, 2].unique().tolist()) == {0.0, 1.0}


def test_frames_are_joined() -> None:
    logits, means, scales = _parameters(1, 4)
    parts = [FrameMixture(logits, means, scales), FrameMixture(2.0 * logits, -means, 3.0 * scales)]
    joined = stacked(parts)
    x = torch.randn(2, 4, D, dtype=torch.float64)
    expected = torch.cat([part.log_prob(x[t : t + 1]) for t, part in enumerate(parts)])
    torch.testing.assert_close(joined.log_prob(x), expected)


@pytest.mark.parametrize(
    ("likelihood", "bins", "outputs"),
    [("mixture", 2, 10), ("channel_mixture", 2, 10), ("pen", 3, 13)],  # two components; 10: the public MS-STCN's
)
def test_a_decoder_gives_finite_densities_and_frames(likelihood: str, bins: int, outputs: int) -> None:
    torch.manual_seed(0)
    layer: Any = head(ModelSettings(likelihood=likelihood, bins=bins, components=2, variance_floor=1e-6), 5)
    assert layer.affine.out_features == outputs
    p = layer(torch.randn(7, 4, 5))
    x = p.sample()
    assert x.shape == (7, 4, bins) and bool(torch.isfinite(p.log_prob(x)).all()) and p.mean.shape == x.shape


@pytest.mark.parametrize(("likelihood", "bins"), [("mixture", 2), ("channel_mixture", 2), ("pen", 3)])
def test_deviations_and_weights_keep_to_their_bounds(likelihood: str, bins: int) -> None:
    """Clamped, not shifted; the weights that are left sum to one."""
    settings = ModelSettings(
        likelihood=likelihood, bins=bins, components=2, variance_floor=1.0, scale_bounds=(0.01, 3.0), weight_floor=0.1
    )
    torch.manual_seed(0)
    layer: Any = head(settings, 5)
    h = 100.0 * torch.randn(50, 1, 5)
    o = layer.affine(h).detach()
    p = layer(h)
    scales = torch.nn.functional.softplus(o[..., 2 + 4 : 2 + 8])
    assert float(scales.min()) < 0.01 and float(scales.max()) > 3.0
    torch.testing.assert_close(p.scales, scales.clamp(0.01, 3.0))
    raised = o[..., :2].softmax(-1).clamp_min(0.1)
    assert float(o[..., :2].softmax(-1).min()) < 0.05
    torch.testing.assert_close(p.logits.softmax(-1), raised / raised.sum(-1, keepdim=True))


@pytest.mark.parametrize("name", ["vrnn", "ms_stcn"])
def test_models_train_on_mixtures_and_generate_from_them(name: str) -> None:
    pair = small_pair(name, likelihood="mixture", components=2, input="standard")
    torch.manual_seed(0)
    x = torch.randn(7, 4, 6, dtype=torch.float64)
    x = x * (torch.arange(7)[:, None] < LENGTHS)[..., None]
    pair.model.fit_input([x[:, 0]])
    bound = Objective(pair.model, pair.guide)(x, LENGTHS)
    bound.loss.backward()
    assert bool(torch.isfinite(bound.terms.elbo).all())
    pair.model(None, torch.tensor([4, 4]))
