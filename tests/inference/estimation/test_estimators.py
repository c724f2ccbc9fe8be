"""Importance weights: what they may depend on, and the bounds that they give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from inference.estimation.importance import Estimate, estimate, log_mean_exp, log_weights
from inference.handlers.noise import SequenceNoise
from inference.objectives.elbo import Objective
from tests.pairs import LENGTHS, PAIRS, data, small_pair

SEEDS = [3, 1, 4, 1]


@pytest.mark.parametrize(("model_name", "guide_name"), [p for p in PAIRS if p[1] in ("paper", "past-markov")])
def test_neither_chunks_nor_the_batch_change_weights(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    x = data()
    with torch.no_grad():
        whole = log_weights(pair.model, pair.guide, x, LENGTHS, 5, seeds=SEEDS)
        assert whole.shape == (5, 4)
        for chunk in (1, 2, 7):
            some = log_weights(pair.model, pair.guide, x, LENGTHS, 5, seeds=SEEDS, chunk=chunk)
            torch.testing.assert_close(some, whole, rtol=0.0, atol=1e-12)
        for n, length in enumerate(LENGTHS.tolist()):
            place = slice(n, n + 1)
            alone = log_weights(pair.model, pair.guide, x[:length, place], LENGTHS[place], 5, seeds=SEEDS[place])
            torch.testing.assert_close(alone, whole[:, place], rtol=0.0, atol=1e-11)


def test_seeds_are_the_only_source_of_noise_and_come_from_torchs_generator_by_default() -> None:
    pair = small_pair("vrnn")
    found = []
    for seed, seeds in ((0, SEEDS), (1, SEEDS), (0, None), (0, None), (1, None)):
        torch.manual_seed(seed)
        found.append(log_weights(pair.model, pair.guide, data(), LENGTHS, 3, seeds=seeds).detach())
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
    assert not torch.equal(found[2], found[4])
    assert len({*found[0].flatten().tolist()}) == 12


@pytest.mark.parametrize("model_name", ["dkf", "dsae"])
def test_one_particle_gives_the_bound_of_the_objective(model_name: str) -> None:
    """Averaged over draws, K = 1 is the ELBO of training: within 6 standard errors; and so is its analytic form."""
    pair = small_pair(model_name)
    x, particles = data(), 400
    with torch.no_grad():
        found = estimate(pair.model, pair.guide, x, LENGTHS, particles, chunk=130)
        torch.testing.assert_close(log_mean_exp(found.log_weights[:1]), found.log_weights[0])
        objective = Objective(pair.model, pair.guide)
        bounds = torch.stack([objective(x, LENGTHS).terms.elbo for _ in range(60)])
    error = (found.log_weights.var(0) / particles + bounds.var(0) / 60).sqrt()
    assert bool(((found.elbo - bounds.mean(0)).abs() < 6.0 * error).all())
    assert bool(((found.analytic - bounds.mean(0)).abs() < 6.0 * error).all())


def test_gradients_are_those_of_the_mean_of_chunks() -> None:
    pair = small_pair("storn")
    grads = []
    for chunk in (None, 2):
        pair.model.zero_grad()
        log_mean_exp(log_weights(pair.model, pair.guide, data(), LENGTHS, 4, seeds=SEEDS, chunk=chunk)).sum().backward()
        grads.append([p.grad.clone() for p in pair.model.parameters() if p.grad is not None])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_effective_sample_size_and_bounds_of_known_weights() -> None:
    weights = torch.tensor([[0.2, 1.0], [0.3, 0.0], [0.5, 0.0]], dtype=torch.float64)
    found = Estimate(weights.clamp_min(1e-300).log() + 700.0, torch.zeros(2))
    torch.testing.assert_close(found.ess, torch.tensor([1.0 / 0.38, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found.iwae, torch.full((2,), 700.0 - 1.0986122886681098, dtype=torch.float64))


@pytest.mark.parametrize("wrong", [{"particles": 0}, {"particles": 2, "chunk": 0}, {"particles": 2, "seeds": [1]}])
def test_wrong_numbers_are_refused(wrong: dict[str, int]) -> None:
    pair = small_pair("vae")
    with pytest.raises(ValueError, match="expected"):
        log_weights(pair.model, pair.guide, data(), LENGTHS, **wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_noise_of_sequences_is_copied_to_the_device_once() -> None:
    """A draw for each sequence and particle on a GPU would be as many kernels, of other numbers than the CPU's."""

    class Kernels(TorchDispatchMode):
        there = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            self.there += isinstance(out, Tensor) and out.device.type == "meta"
            return out

    mean = torch.zeros(10, 7, 4, 3)
    drawn = {}
    for device in ("cpu", "meta"):
        ones = torch.ones_like(mean, device=device)
        normal = dist.Independent(dist.Normal(mean.to(device), ones, validate_args=False), 1)
        axis = SimpleNamespace(sites=SimpleNamespace(frames=7, lengths=LENGTHS), start=0, stop=7)
        with Kernels() as kernels:  # type: ignore[no-untyped-call]  # torch's class has no annotations
            drawn[device] = cast(Tensor, SequenceNoise(LENGTHS, SEEDS).normal("z", normal, axis))
    assert kernels.there <= 2
    assert drawn["meta"].shape == drawn["cpu"].shape and float(drawn["cpu"].abs().sum()) > 0
