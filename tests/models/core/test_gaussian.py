"""The density of `DiagonalNormal` against PyTorch's."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from models.core.gaussian import DiagonalNormal

SHAPES = {"alike": ((4, 3, 2), (4, 3, 2), (4, 3, 2)), "broadcast": ((5, 4, 3, 2), (3, 2), (2,))}
"""Shapes of value, mean and log-variance."""


def _drawn(shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def _plain(mean: Tensor, log_variance: Tensor) -> Any:
    return dist.Independent(dist.Normal(mean, torch.exp(0.5 * log_variance)), 1)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_density_gradients_and_second_derivatives_are_those_of_independent_normals(shapes: Any) -> None:
    value, mean, log_variance = leaves = _drawn(shapes)
    results = []
    for kind in (DiagonalNormal, _plain):
        density = kind(mean, log_variance).log_prob(value)
        weights = torch.linspace(-1.0, 2.0, density.numel(), dtype=torch.float64).view_as(density)
        plain = torch.autograd.grad((density * weights).sum(), leaves)
        density = kind(mean, log_variance).log_prob(value)
        first = torch.autograd.grad((density * weights).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((one.square().sum() for one in first), torch.zeros(())), leaves)
        results.append([density, *plain, *first, *second])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_draw_of_it_is_differentiated_through_its_parameters() -> None:
    _, mean, log_variance = leaves = _drawn(SHAPES["alike"])
    gradients = []
    for kind in (DiagonalNormal, _plain):
        torch.manual_seed(0)
        q = kind(mean, log_variance)
        gradients.append(torch.autograd.grad(q.log_prob(q.rsample()).sum(), leaves[1:]))
    assert gradients[0][1].std() < 1e-12  # of the entropy: -1/2 for every log-variance
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_extreme_log_variances_are_finite_where_those_of_independent_normals_are() -> None:
    log_variance = torch.tensor([[-90.0], [0.0], [80.0]])
    value = mean = torch.full((3, 1), 0.5)
    found, expected = (kind(mean, log_variance).log_prob(value) for kind in (DiagonalNormal, _plain))
    torch.testing.assert_close(found, expected)


def test_expanded_and_for_divergences_it_is_an_independent_normal() -> None:
    _, mean, log_variance = _drawn(SHAPES["alike"])
    q, p = DiagonalNormal(mean, log_variance), _plain(mean + 1.0, 0.5 * log_variance)
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(_plain(mean, log_variance), p))
    one = DiagonalNormal(mean[0, 0], log_variance[0, 0])
    wide = one.expand((4, 3))
    assert isinstance(wide, DiagonalNormal) and wide.batch_shape == (4, 3) and wide.event_shape == (2,)
    torch.testing.assert_close(wide.log_prob(mean), one.log_prob(mean), rtol=1e-12, atol=1e-12)
    assert wide.expand((4, 3)).rsample().shape == (4, 3, 2)


def test_bad_parameters_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="loc"):
        DiagonalNormal(torch.tensor([float("nan")]), torch.zeros(1))
    p = DiagonalNormal(torch.zeros(1), torch.zeros(1))
    for one in (p, p.expand((3,))):
        with pytest.raises(ValueError, match="support"):
            one.log_prob(torch.full((3, 1), float("nan")))


def test_function_transforms_take_the_density_of_independent_normals() -> None:
    value, mean, log_variance = (leaf.detach() for leaf in _drawn(SHAPES["alike"]))
    found = torch.func.vmap(lambda v: DiagonalNormal(mean[0], log_variance[0]).log_prob(v))(value)
    torch.testing.assert_close(found, _plain(mean[0], log_variance[0]).log_prob(value))
