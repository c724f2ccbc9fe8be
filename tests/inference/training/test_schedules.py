"""Schedules against their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from inference.settings.tree import OptimSettings, TrainSettings
from inference.training.schedules import kl_warmup, kl_weight, learning_rate, total_steps


def test_constant_with_warm_up_rises_linearly_and_stays() -> None:
    optim = OptimSettings(lr=0.4, warmup_steps=4)
    assert [learning_rate(optim, k, 100) for k in (1, 2, 4, 5, 100)] == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])


def test_exponential_is_gamma_per_decay_steps() -> None:
    optim = OptimSettings(lr=0.4, schedule="exponential", gamma=0.5, decay_steps=10, min_lr=0.02)
    assert learning_rate(optim, 10, 1000) == pytest.approx(0.2)
    assert learning_rate(optim, 25, 1000) == pytest.approx(0.4 * 0.5**2.5)
    assert learning_rate(optim, 900, 1000) == 0.02


def test_without_decay_steps_gamma_is_reached_at_the_end() -> None:
    optim = OptimSettings(lr=0.4, schedule="exponential", gamma=0.1, warmup_steps=20)
    assert learning_rate(optim, 20, 120) == pytest.approx(0.4)
    assert learning_rate(optim, 120, 120) == pytest.approx(0.04)


@pytest.mark.parametrize("decay_steps", [None, 80])
def test_cosine_is_half_a_period_from_lr_to_its_minimum(decay_steps: int | None) -> None:
    optim = OptimSettings(lr=1.0, schedule="cosine", warmup_steps=20, decay_steps=decay_steps, min_lr=0.1)
    total = 100
    for k in range(20, 101, 7):
        expected = 0.1 + 0.9 * math.cos(math.pi * (k - 20) / 80 / 2) ** 2
        assert learning_rate(optim, k, total) == pytest.approx(expected)
    assert learning_rate(optim, 10, total) == pytest.approx(0.5)
    assert learning_rate(optim, 500, total) == pytest.approx(0.1)


def test_kl_weight_rises_to_beta() -> None:
    train = TrainSettings(beta=0.5, kl_warmup_steps=10)
    assert [kl_weight(train, k) for k in (1, 5, 10, 50)] == pytest.approx([0.05, 0.25, 0.5, 0.5])
    assert kl_weight(TrainSettings(), 1) == 1.0


def test_a_latent_may_have_a_weight_of_its_own() -> None:
    train = TrainSettings(beta=0.5, beta_sites={"v": 150.0}, kl_warmup_steps=10)
    assert [kl_weight(train, 5, site) for site in (None, "z", "v")] == pytest.approx([0.25, 0.25, 75.0])


def test_training_ends_at_the_nearer_limit() -> None:
    assert total_steps(TrainSettings(steps=7, epochs=None), batches=5) == 7
    assert total_steps(TrainSettings(steps=None, epochs=3), batches=5) == 15
    assert total_steps(TrainSettings(steps=7, epochs=1), batches=5) == 5


def test_warm_up_of_the_kl_in_epochs_is_a_quarter_of_the_training_at_most() -> None:
    settings = TrainSettings(kl_warmup_epochs=10, epochs=100)
    assert kl_warmup(settings, batches=20) == 200
    assert kl_warmup(replace(settings, epochs=20), batches=20) == 100
    assert kl_warmup(replace(settings, steps=40), batches=20) == 10
    assert kl_warmup(replace(settings, kl_warmup_steps=7), batches=20) == 7  # steps replace epochs
    assert kl_warmup(replace(settings, kl_warmup_steps=0), batches=20) == 0
    assert kl_warmup(TrainSettings(), batches=20) == 0
