"""The discriminative objective against a softmax written out, over all of a table and over some of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from inference.handlers.discriminative import discriminative, log_p_sequence
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Objective
from models.core.grouping import SequenceIndex
from tests.support.fhvae import DIM, LENGTHS, data, noise, rows_of, small

ALL = [0, 1, 2, 3, 4]


def by_hand(m: Tensor, candidates: Tensor, right: Tensor, deviation: float) -> Tensor:
    """log N(m; mu_i) - log sum_j N(m; mu_j), segment by segment."""
    found = []
    for segment, place in zip(m, right.tolist(), strict=True):
        densities = [Normal(mu, deviation).log_prob(segment).sum().exp() for mu in candidates]
        found.append((densities[place] / sum(densities)).log())
    return torch.stack(found)


def test_log_told_is_the_softmax_written_out() -> None:
    generator = torch.Generator().manual_seed(1)
    m, candidates = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 6))
    right, variance = torch.tensor([5, 0, 0, 2]), torch.full((3,), 0.25, dtype=torch.float64)
    expected = by_hand(m, candidates, right, 0.5)
    torch.testing.assert_close(log_p_sequence(m, candidates, right, variance), expected)
    torch.testing.assert_close(
        log_p_sequence(m.expand(2, 1, 4, 3), candidates, right, variance), expected.expand(2, 1, 4)
    )


@pytest.mark.parametrize("latents", ["mean", "sample"])
@pytest.mark.parametrize("name", ["elbo", "analytic"])
def test_the_factor_is_in_the_loss_and_not_in_the_bound(latents: str, name: str) -> None:
    model, guide = small()
    table: Any = guide.table
    objective, rows = Objective(model, guide, name), rows_of(ALL)
    losses = []
    for handler in (None, discriminative(10.0, latents)):
        with given_noise(noise(ALL)):
            if handler is None:
                plain = objective(data(), LENGTHS, rows=rows)
            else:
                with handler:
                    told = objective(data(), LENGTHS, rows=rows)
        losses.append(told.loss if handler else plain.loss)
    q2: Any = guide.x_z2(guide._data(data(), LENGTHS), LENGTHS)
    m = q2.mean if latents == "mean" else q2.mean + q2.variance.sqrt() * noise(ALL)["z2"]
    expected = by_hand(m, table.weight, rows.row, 0.5)
    torch.testing.assert_close(losses[1], losses[0] - 10.0 * expected.sum())
    torch.testing.assert_close(told.factors["discriminative"], expected.detach())
    torch.testing.assert_close(told.terms.elbo, plain.terms.elbo)
    assert not plain.factors


def test_its_gradient_reaches_all_rows_or_the_active_ones_alone() -> None:
    model, guide = small(table=6)
    table: Any = guide.table
    row = torch.tensor([4, 1])
    batch = data()[:, :2], LENGTHS[:2]
    rows = SequenceIndex(row, torch.tensor([2, 3]), torch.tensor([0, 1]), 6, 5, trained=True)
    for active, touched in ((None, [0, 1, 2, 3, 4, 5]), (torch.tensor([1, 3, 4]), [1, 3, 4])):
        table.sparse = active is not None
        table.weight.grad = None
        with mean_latents(), discriminative(1.0):
            found = Objective(model, guide)(*batch, rows=rows._replace(active=active))
        found.loss.backward()
        assert table.weight.grad.is_sparse == (active is not None)
        gradient = table.weight.grad.to_dense()
        assert gradient.abs().sum(1).nonzero().flatten().tolist() == touched
        chosen = torch.arange(6) if active is None else active
        expected = by_hand(
            guide.z2_mean(*batch), table.weight[chosen], torch.searchsorted(chosen, row), model.z2_variance**0.5
        )
        torch.testing.assert_close(found.factors["discriminative"], expected.detach())


def test_particles_are_averaged() -> None:
    """On the mean all draws of the guide say the same."""
    model, guide = small()
    losses = []
    for particles in (1, 3):
        with discriminative(2.0):
            bound = Objective(model, guide, particles=particles)(data(), LENGTHS, rows=rows_of(ALL))
        losses.append(bound.factors["discriminative"])
    assert losses[1].shape == (5,)
    torch.testing.assert_close(losses[0], losses[1])
    assert DIM == model.z2_dim


def test_weights_and_words_that_say_nothing_are_refused() -> None:
    for alpha, latents in ((0.0, "mean"), (-1.0, "mean"), (1.0, "median")):
        with pytest.raises(ValueError, match="alpha=.*latents="):
            discriminative(alpha, latents)


def test_free_bits_leave_a_point_as_it_is() -> None:
    from inference.handlers.free_bits import free_bits

    model, guide = small()
    objective = Objective(model, guide, "analytic")
    losses = []
    for threshold in (0.0, 1e6):
        with mean_latents(), free_bits(threshold, mode="constant"):
            losses.append(objective(data(), LENGTHS, rows=rows_of(ALL)))
    shared = losses[0].terms.kl["z1"].sum() + losses[0].terms.kl["z2"].sum()
    torch.testing.assert_close(losses[1].loss, losses[0].loss - shared)
