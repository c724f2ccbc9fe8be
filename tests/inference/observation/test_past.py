"""A model's own past in two passes: the numbers and gradients of the loop that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference.handlers.free_running import free_running
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Objective
from inference.observation.noise import Noise, NoiseParameters
from inference.observation.past import own_past
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced

SMALL = {"light_dvae": ["model.x=[8]", "model.d_model=8", "model.ff=8", "guide.x=[8]", "guide.d_model=8", "guide.ff=8"]}
SMALL["hit_dvae"] = SMALL["light_dvae"]


@pytest.mark.parametrize("model", ["srnn", "vrnn", "storn", "rnn", "light_dvae", "hit_dvae", "dkf"])
def test_numbers_and_gradients_are_those_of_the_loop(model: str) -> None:
    torch.set_default_dtype(torch.float64)
    overrides = ["model.bins=5", "dtype=float64", *SMALL.get(model, [])]
    if model == "rnn":
        overrides.append("model.likelihood=power_spectrum")
    prior, guide = create(resolve(model, overrides=overrides))
    prior.eval(), guide.eval()
    y, lengths = torch.rand(6, 2, 5), torch.tensor([6, 4])
    y[4:, 1] = 0.0
    parameters = NoiseParameters(torch.rand(2, 5, 2), torch.rand(2, 2, 6), torch.rand(2, 1, 6))
    found: list[tuple[Any, Any]] = []
    for past in (free_running(), own_past()):
        prior.zero_grad()
        guide.zero_grad()
        with Noise(parameters), past, mean_latents(["z", "w", "v"]):
            bound = Objective(prior, guide, "analytic")(y, lengths)
        bound.loss.backward()
        found.append((bound.loss.detach(), [p.grad for p in {*prior.parameters(), *guide.parameters()}]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)
        else:
            assert one is None or not one.any()
            assert other is None or not other.any()


def test_without_latents_the_model_still_generates_along() -> None:
    """Latents that nobody has set are drawn frame by frame, as under `free_running`."""
    prior, _ = create(resolve("srnn", overrides=["model.bins=5", "dtype=float64"]))
    y, lengths = torch.rand(4, 1, 5, dtype=torch.float64), torch.tensor([4])
    drawn = []
    for past in (free_running(), own_past()):
        torch.manual_seed(0)
        with past:
            drawn.append(traced(prior, y, lengths).nodes["z"]["value"])
    torch.testing.assert_close(*drawn)
