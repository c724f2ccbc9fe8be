"""Guides of each sequence's own: those of the loops one by one, in values, draws and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference.handlers.free_running import free_running
from inference.handlers.given_noise import given_noise
from inference.objectives.elbo import Objective
from inference.posterior.individual import Individual
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced


@pytest.mark.parametrize(
    "model, guide", [("dkf", "paper"), ("srnn", "paper"), ("rvae", "paper"), ("vrnn", "paper"), ("dkf", "all-markov")]
)
def test_stacked_loops_are_those_of_each_guide(model: str, guide: str) -> None:
    """Every guide has weights of its own (moved at random); the bound and the gradients of all weights are the same."""
    torch.set_default_dtype(torch.float64)
    prior, first = create(resolve(model, guide, overrides=["model.bins=5", "model.z_dim=3", "dtype=float64"]))
    y, lengths = torch.rand(6, 3, 5), torch.tensor([6, 4, 5])
    y[4:, 1], y[5:, 2] = 0.0, 0.0
    guides = Individual(prior, first, 3)
    shared = {id(p) for p in prior.parameters()}
    with torch.no_grad():
        for p in guides.parameters():
            if id(p) not in shared:
                p.add_(0.1 * torch.randn_like(p))
    drawn = torch.randn(6, 3, 3)
    noise = given_noise({"z": drawn})
    with noise:
        whole = traced(guides, y, lengths).nodes["z"]["value"]
    for n, length in enumerate(lengths.tolist()):
        own: Any = guides.guides[n]
        with given_noise({"z": drawn[:length, n : n + 1]}):
            alone = traced(own, y[:length, n : n + 1], lengths[n : n + 1]).nodes["z"]["value"]
        torch.testing.assert_close(whole[:length, n : n + 1], alone)
    with noise, free_running():
        together = Objective(prior, guides, "analytic")(y, lengths)
    gradients = torch.autograd.grad(together.loss, guides.trained)
    expected: list[torch.Tensor] = []
    for n, length in enumerate(lengths.tolist()):
        own = guides.guides[n]
        with given_noise({"z": drawn[:length, n : n + 1]}), free_running():
            alone = Objective(prior, own, "analytic")(y[:length, n : n + 1], lengths[n : n + 1])
        torch.testing.assert_close(together.terms.elbo[n : n + 1], alone.terms.elbo)
        expected += torch.autograd.grad(alone.loss, [p for p in own.parameters() if id(p) not in shared])
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("model", ["vae", "dsae", "hit_dvae", "light_dvae"])
def test_guides_without_a_loop_are_run_one_by_one(model: str) -> None:
    torch.set_default_dtype(torch.float64)
    small = ["model.x=[8]", "model.d_model=8", "model.ff=8", "guide.x=[8]", "guide.d_model=8", "guide.ff=8"]
    overrides = ["model.bins=5", "dtype=float64", *(small if model.endswith("t_dvae") else [])]
    prior, first = create(resolve(model, overrides=overrides))
    prior.eval(), first.eval()
    y, lengths = torch.rand(6, 2, 5), torch.tensor([6, 4])
    y[4:, 1] = 0.0
    guides = Individual(prior, first, 2).eval()
    ours, one = traced(guides, y, lengths), traced(first, y, lengths)
    for name in prior.latents:
        q, p = (trace.nodes[name]["fn"] for trace in (ours, one))
        if name == "z" and len(prior.latents) > 1:
            continue  # follows from the draw of the other one
        q_mean, p_mean = q.mean, p.mean
        torch.testing.assert_close(q_mean[:4], p_mean[:4])


def test_draws_with_particles_are_run_one_by_one() -> None:
    prior, first = create(resolve("dkf", overrides=["model.bins=5", "dtype=float64"]))
    y, lengths = torch.rand(6, 2, 5, dtype=torch.float64), torch.tensor([6, 6])
    bound = Objective(prior, Individual(prior, first, 2), "analytic", particles=5)(y, lengths)
    assert bound.terms.elbo.shape == (2,) and bool(bound.terms.elbo.isfinite().all())
