"""The particle filter, held to importance weights where it never resamples, and to scored trajectories."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.estimation.importance import density, effective_sample_size, log_mean_exp, log_weights
from inference.handlers.free_running import free_running
from inference.handlers.kl_scale import kl_scale
from inference.particles import particle_filter, resampling
from inference.particles.particle_filter import Filtered, smc
from inference.particles.resampling import SCHEMES, resample
from tests.cudnn import Asked
from tests.pairs import LENGTHS, PAIRS, VARIANTS, Pair, data, parameters, small_pair

SEEDS = ["a", "b", "c", "d"]
WITHOUT_STEP = [name for name in VARIANTS if not small_pair(name).model.stepwise]
WITHOUT = [*WITHOUT_STEP, *(name for name in VARIANTS if not small_pair(name).model.latents)]
CHOSEN = [(v, g) for v, g in PAIRS if g in ("paper", "all-memory", "future-markov") and v not in WITHOUT]
MODES = {"gt": nullcontext, "gen": free_running}


def filtered(pair: Pair, particles: int = 6, n: slice = slice(None), **settings: Any) -> Filtered:
    lengths = LENGTHS[n]
    x = data()[: int(lengths.max()), n]
    with torch.no_grad():
        return smc(pair.model, pair.guide, x, lengths, particles, seeds=SEEDS[n], **settings)


@pytest.mark.parametrize(("model_name", "guide_name"), CHOSEN)
def test_without_resampling_it_is_the_importance_weighted_bound(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    weights = log_weights(pair.model, pair.guide, data(), LENGTHS, 6, seeds=SEEDS)
    found = filtered(pair, threshold=0.0)
    assert not bool(found.resampled.any())
    torch.testing.assert_close(found.log_evidence, log_mean_exp(weights), rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(found.log_weights, weights - weights.logsumexp(0), rtol=1e-10, atol=1e-10)
    ends = found.ess.gather(0, LENGTHS[None] - 1)[0]
    torch.testing.assert_close(ends, effective_sample_size(weights), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("model_name", "guide_name"), CHOSEN)
def test_weights_along_a_lineage_are_those_of_the_trajectory(
    model_name: str, guide_name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product of a lineage's weights is p(x, z) / q(z | x) of its latents, scored all frames at once: values,
    recurrent states, means fed back and latents outside time all follow the ancestors.
    """
    pair = small_pair(model_name, guide_name)
    frames: list[Tensor] = []
    frame = particle_filter._Steps.frame

    def recorded(self: Any, *args: Any, **more: Any) -> Tensor:
        frames.append(frame(self, *args, **more))
        return frames[-1]

    monkeypatch.setattr(particle_filter._Steps, "frame", recorded)
    with MODES[mode]():
        found = filtered(pair, threshold=1.0)
    assert bool(found.resampled.any())

    along, at = torch.zeros(6, 4, dtype=torch.float64), torch.arange(6)[:, None].expand(-1, 4)
    lines = []
    for t in range(len(frames) - 1, -1, -1):
        along += frames[t].gather(0, at)
        lines.append(at)
        at = found.ancestors[t].gather(0, at)
    lineage = torch.stack(lines[::-1], dim=1)[..., None]  # (K, T, N, 1)
    assert int((lineage[:, 0] != torch.arange(6)[:, None, None]).sum()) > 0
    values = {name: z.take_along_dim(lineage[:, : z.shape[1]], 0) for name, z in found.latents.items()}
    torch.testing.assert_close(along, scored(pair, values, MODES[mode]()), rtol=1e-9, atol=1e-9)


def scored(pair: Pair, values: dict[str, Tensor], mode: AbstractContextManager[Any]) -> Tensor:
    """log p(x, z) - log q(z | x) of given latents (K, T, N, L), in one pass."""
    with torch.no_grad(), mode, pyro.plate("particles", 6, dim=-3), poutine.condition(data=values):
        model, guide = (poutine.trace(p).get_trace(data(), LENGTHS) for p in (pair.model, pair.guide))
    model.compute_log_prob()
    guide.compute_log_prob()
    return density(model) - density(guide)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model_name", ["dsae", "vrnn"])
def test_a_ragged_batch_equals_its_sequences_one_by_one(model_name: str, scheme: str) -> None:
    pair = small_pair(model_name)
    together = filtered(pair, threshold=0.9, scheme=scheme)
    for n, length in enumerate(LENGTHS.tolist()):
        alone = filtered(pair, n=slice(n, n + 1), threshold=0.9, scheme=scheme)
        torch.testing.assert_close(together.log_evidence[n], alone.log_evidence[0], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(together.ess[:length, n], alone.ess[:, 0], rtol=1e-10, atol=1e-10)
        assert torch.equal(together.ancestors[:length, :, n], alone.ancestors[:, :, 0])
        assert not bool(together.ess[length:, n].any()) and not bool(together.resampled[length - 1 :, n].any())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ancestors_are_expected_in_proportion_to_weights(scheme: str) -> None:
    """K W_k on average, within 6 standard errors; systematic and stratified ones closer than chance."""
    torch.manual_seed(0)
    particles, draws = 7, 4000
    weights = torch.rand(particles, dtype=torch.float64)
    weights[2] = 0.0
    weights /= weights.sum()
    uniforms = torch.rand(1 if scheme == "systematic" else particles, draws, dtype=torch.float64)
    ancestors = resample(weights.log()[:, None].expand(-1, draws) + 3.0, scheme, uniforms)
    counts = (ancestors[None] == torch.arange(particles)[:, None, None]).sum(1).double()  # (K, draws)
    expected = particles * weights
    error = counts.std(1) / draws**0.5
    assert bool(((counts.mean(1) - expected).abs() <= 6.0 * error + 1e-9).all())
    assert not bool((ancestors == 2).any())
    furthest = float((counts - expected[:, None]).abs().max())
    assert {"systematic": furthest < 1.0, "stratified": 1.0 < furthest < 2.0, "multinomial": furthest > 2.0}[scheme]


def test_it_draws_from_torchs_generator_unless_told_otherwise() -> None:
    pair = small_pair("srnn")
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append(smc(pair.model, pair.guide, data(), LENGTHS, 4, threshold=1.0).log_evidence)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_gradients_reach_every_parameter_and_none_comes_from_ancestors() -> None:
    """Given the ancestors the estimate is a smooth function: finite differences that leave them as they are agree."""
    pair = small_pair("vrnn")

    def evidence() -> Filtered:
        return smc(pair.model, pair.guide, data(), LENGTHS, 4, threshold=1.0, seeds=SEEDS)

    found = evidence()
    found.log_evidence.sum().backward()
    every = list(parameters(pair).values())
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in every)
    for parameter in every[::5]:
        assert parameter.grad is not None
        slope, step = parameter.grad.flatten()[0].item(), 1e-6
        ends = []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                parameter.view(-1)[0] += sign * step
                moved = evidence()
                assert torch.equal(moved.ancestors, found.ancestors)
                ends.append(moved.log_evidence.sum().item())
                parameter.view(-1)[0] -= sign * step
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_handlers_that_scale_act_on_its_weights() -> None:
    pair = small_pair("dkf")
    with kl_scale(0.0):
        scaled = filtered(pair, threshold=0.0)
        expected = log_mean_exp(log_weights(pair.model, pair.guide, data(), LENGTHS, 6, seeds=SEEDS))
    torch.testing.assert_close(scaled.log_evidence, expected, rtol=1e-10, atol=1e-10)


def test_what_cannot_be_filtered_is_refused() -> None:
    for name in WITHOUT_STEP:
        with pytest.raises(UserError, match="iwae"):
            filtered(small_pair(name))
    dkf = small_pair("dkf")
    with pytest.raises(ValueError, match="scheme='residual'"):
        filtered(dkf, scheme="residual")
    with pytest.raises(ValueError, match="keep=True"):
        filtered(dkf, keep=False).smoothed(1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_look_the_same_particles_are_resampled(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a look takes longer than to resample; there every frame does, and changes only those that need it."""
    pair = small_pair("vrnn")
    looked = filtered(pair, scheme=scheme, threshold=0.7)
    assert 0 < int(looked.resampled.sum()) < int(LENGTHS.sum()) - len(LENGTHS)
    for module in (particle_filter, resampling):
        monkeypatch.setattr(module, "checks_each_frame", lambda device: False)
    found, values = {}, {}
    for frames in (2, 7):
        x, lengths = data()[:frames], LENGTHS.clamp_max(frames)
        with torch.no_grad(), pyro.validation_enabled(False), Asked() as asked:
            found[frames] = smc(pair.model, pair.guide, x, lengths, 6, seeds=SEEDS, scheme=scheme, threshold=0.7)
        values[frames] = asked.values
    for one, other in zip(looked[:-1], found[7][:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)
    assert values[2] == values[7], "as many for 7 frames as for 2"
