"""A factorised Gaussian of each sequence, held to the linear-Gaussian chain whose best mean field is a closed form."""

from __future__ import annotations

import pyro
import pytest
import torch

from dvae_pyro.errors import UserError
from inference.estimation.importance import estimate
from inference.estimation.individual_normal import IndividualNormal, individual_normal
from inference.svi import main
from models.dkf import DKFSettings
from models.registry import model_names
from tests.inference.estimation.test_refinement import (
    FRAMES,
    GAIN,
    NOISE,
    PULL,
    SCALE,
    SEEDS,
    bounds,
    chain,
    closed_forms,
    sequences,
)
from tests.pairs import LENGTHS, data, small_pair, traced
from tests.support.guides import guide_of


def test_it_is_the_best_mean_field_of_a_linear_chain() -> None:
    """Its bound, means and variances, from an untrained guide of another family; the sequences have 4 and 3 frames."""
    model, (exact, of_mean_field) = chain(), closed_forms()
    guide = guide_of(model, DKFSettings(), "past-memory")
    assert float((exact - bounds(model, guide) - of_mean_field).min()) > 0.3  # there is something to gain
    torch.manual_seed(0)
    fitted = individual_normal(model, guide, sequences(), FRAMES, steps=200, lr=0.2)
    gap = exact - estimate(model, fitted, sequences(), FRAMES, 1000, seeds=SEEDS).analytic
    torch.testing.assert_close(gap, of_mean_field, rtol=0.0, atol=0.03)
    q = fitted.posterior("z")
    for n, frames in enumerate(FRAMES.tolist()):
        step = torch.eye(frames).double() - PULL * torch.diag(torch.ones(frames - 1).double(), -1)
        weighted = torch.kron(torch.eye(frames).double(), GAIN / SCALE.square())  # (T, 2T)
        precision = step.t() @ step / NOISE**2 + (GAIN.square() / SCALE.square()).sum() * torch.eye(frames).double()
        mean = precision.inverse() @ weighted @ sequences()[:frames, n].reshape(-1)
        torch.testing.assert_close(q.mean[:frames, n, 0], mean, rtol=0.0, atol=0.1)
        torch.testing.assert_close(q.variance[:frames, n, 0], precision.diagonal().reciprocal(), rtol=0.25, atol=0.0)
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize("variant", model_names())
def test_it_has_the_sites_of_every_model_and_starts_at_its_guide(variant: str) -> None:
    pair, x = small_pair(variant), data()
    if pair.model.hierarchical or not pair.model.latents:
        with pytest.raises(UserError, match="auto-normal"):
            IndividualNormal(pair.model, pair.guide, x, LENGTHS)
        return
    q = IndividualNormal(pair.model, pair.guide, x, LENGTHS)
    ours, theirs = traced(q, x, LENGTHS), traced(pair.guide, x, LENGTHS)
    for name in pair.model.latents:
        one, other = ours.nodes[name], theirs.nodes[name]
        assert one["value"].shape == other["value"].shape
        assert {f.name for f in one["cond_indep_stack"]} == {f.name for f in other["cond_indep_stack"]}
    if variant == "vae":  # whose conditionals are given no other latent
        torch.testing.assert_close(ours.nodes["z"]["fn"].mean, theirs.nodes["z"]["fn"].mean)
        torch.testing.assert_close(ours.nodes["z"]["fn"].variance, theirs.nodes["z"]["fn"].variance)
    assert {*q.parameters()}.isdisjoint({*pair.model.parameters(), *pair.guide.parameters()})


def test_gradients_of_a_sequence_are_in_its_own_frames() -> None:
    pair, x = small_pair("dkf"), data()
    q = IndividualNormal(pair.model, pair.guide, x, LENGTHS)
    trace = traced(q, x, LENGTHS)
    trace.compute_log_prob()
    trace.nodes["z"]["log_prob"].sum(0)[1].backward()
    touched = [p.grad.abs().sum(-1) > 0 for p in q.parameters() if p.grad is not None]
    own = (torch.arange(7)[:, None] < LENGTHS) & (torch.arange(4) == 1)
    assert any(bool(t.any()) for t in touched) and all(bool((t <= own).all()) for t in touched)


def test_training_refuses_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "dkf", "--guide", "auto-normal"]) == 2
    assert "one batch" in capsys.readouterr().err
