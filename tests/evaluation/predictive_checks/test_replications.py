"""Draws of latents and data against densities computed one draw at a time, and against known means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyro.poutine.messenger import Messenger

from evaluation.predictive_checks import replications
from evaluation.predictive_checks.replications import Draws, posterior_draws, prior_draws
from inference.prediction.reconstruction import reconstruct
from tests.pairs import BINS, FRAMES, LENGTHS, data, per_sequence, scored, small_pair, traced

DRAWS = 5


def joined(parts: list[Draws]) -> Draws:
    latents = {name: torch.cat([part.latents[name] for part in parts]) for name in parts[0].latents}
    weights, densities, data = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("log_weight", "log_likelihood", "replicated")
    )
    return Draws(latents, weights, densities, data)


@pytest.mark.parametrize("variant", ["dkf", "vrnn", "rvae-noncausal", "dsae", "ms_stcn"])
def test_weights_and_log_likelihoods_are_those_of_each_draw_alone(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replications, "VALUES_AT_ONCE", 2 * data().numel())  # parts of 2, 2 and 1 draws
    pair, x = small_pair(variant), data()
    parts = list(posterior_draws(pair.model, pair.guide, x, LENGTHS, DRAWS))
    assert [len(part.log_weight) for part in parts] == [2, 2, 1]
    made = joined(parts)
    for k in range(DRAWS):
        values = {name: z[k] for name, z in made.latents.items()}
        model, guide = (scored(program, values, x, LENGTHS, "auto") for program in (pair.model, pair.guide))
        expected = sum(per_sequence(model).values()) - sum(per_sequence(guide).values())
        torch.testing.assert_close(made.log_weight[k], expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(made.log_likelihood[k], model.nodes["x"]["log_prob"], rtol=1e-10, atol=1e-10)


def test_replications_follow_the_decoder_and_end_with_their_sequence() -> None:
    pair, x = small_pair("dkf"), data()
    (made,) = posterior_draws(pair.model, pair.guide, x, LENGTHS, 1000)
    beyond = torch.arange(FRAMES)[:, None] >= LENGTHS
    assert float(made.replicated[:, beyond].abs().max()) == 0.0
    variance = pair.model.decoder(made.latents["z"]).mean.detach()  # type: ignore[operator]  # attributes of a Module
    ratio = (made.replicated / variance)[:, ~beyond]  # exponential with mean 1, and so standard deviation 1
    assert float((ratio.mean(0) - 1.0).abs().max()) < 6.0 / 1000**0.5
    assert float((ratio.var(0) - 1.0).abs().max()) < 6.0 * (8.0 / 1000) ** 0.5


def test_mode_gen_scores_and_draws_under_the_models_own_past() -> None:
    pair, x = small_pair("vrnn"), data()
    for mode, same in (("gt", True), ("gen", False)):
        (made,) = posterior_draws(pair.model, pair.guide, x, LENGTHS, 2, mode=mode)
        values = {name: z[0] for name, z in made.latents.items()}
        forced = scored(pair.model, values, x, LENGTHS, "auto").nodes["x"]["log_prob"]
        assert torch.allclose(made.log_likelihood[0], forced) is same
        torch.testing.assert_close(made.log_likelihood[0, 0], forced[0])  # the first frame has no past


@pytest.mark.parametrize("variant", ["vrnn", "rvae-noncausal"])
def test_prior_draws_have_the_distribution_of_the_model_run_alone(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replications, "VALUES_AT_ONCE", 300 * FRAMES * len(LENGTHS) * BINS)
    pair = small_pair(variant, input="standard")
    draws = 800
    made = torch.cat(list(prior_draws(pair.model, LENGTHS, draws, BINS)))
    assert made.shape == (draws, FRAMES, len(LENGTHS), BINS)
    beyond = torch.arange(FRAMES)[:, None] >= LENGTHS
    assert float(made[:, beyond].abs().max()) == 0.0
    alone = traced(pair.model, None, torch.full((draws,), FRAMES)).nodes["x"]["value"]
    for t in (0, 4):  # the log of an exponential has a finite variance, whatever its mean
        one, other = made[:, t, 0].clamp_min(1e-30).log(), alone[t].detach().clamp_min(1e-30).log()
        error = ((one.var(0) + other.var(0)) / draws).sqrt()
        assert float(((one.mean(0) - other.mean(0)) / error).abs().max()) < 5.0


@pytest.mark.parametrize("mode", ["gt", "gen"])
def test_distributions_are_not_checked_while_a_run_is_evaluated(mode: str) -> None:
    """A GPU would be waited for at every one of them; whoever debugs calls the model."""
    pair = small_pair("vrnn")
    seen: list[bool] = []

    class Watch(Messenger):
        def _pyro_draw(self, msg: Any) -> None:
            seen.append(torch.distributions.Distribution._validate_args)

        _pyro_prev = _pyro_draw

    with Watch():
        reconstruct(pair.model, pair.guide, data(), LENGTHS, mode=mode)
        list(posterior_draws(pair.model, pair.guide, data(), LENGTHS, 2, mode=mode))
        list(prior_draws(pair.model, LENGTHS, 2, BINS))
    assert len(seen) > 4 and not any(seen)
    assert torch.distributions.Distribution._validate_args
