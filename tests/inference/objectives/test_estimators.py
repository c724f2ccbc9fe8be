"""The objectives as subclasses of `pyro.infer.ELBO`, under Pyro's own `SVI` and as torch modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim.pytorch_optimizers import Adam  # type: ignore[attr-defined]  # made when Pyro is imported
from torch import nn

from inference.objectives.elbo import Objective
from inference.objectives.estimators import ESTIMATORS, FIVO, AnalyticELBO, TraceELBO
from tests.pairs import LENGTHS, data, parameters, small_pair


@pytest.mark.parametrize("variant", ["dkf", "vrnn", "fhvae"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_svi_and_torch_module_train_as_our_objective_does(name: str, variant: str) -> None:
    if name == "fivo" and variant == "fhvae":
        pytest.skip("latents of rows are not filtered")
    pairs = [small_pair(variant) for _ in range(3)]
    of_pair = [(pair.model, pair.guide) for pair in pairs]
    svi: Any = SVI(*of_pair[0], Adam({"lr": 1e-2}), ESTIMATORS[name](4))
    module, ours = ESTIMATORS[name](4)(*of_pair[1]), Objective(*of_pair[2], name, particles=4)
    optimisers = [torch.optim.Adam(one.parameters(), lr=1e-2) for one in (module, ours)]
    assert isinstance(svi, SVI) and isinstance(module, nn.Module) and isinstance(ESTIMATORS[name](), ELBO)
    for step in range(3):
        torch.manual_seed(step)
        losses = [svi.step(data(), lengths=LENGTHS)]
        for program, optimiser in zip((module, ours), optimisers, strict=True):
            torch.manual_seed(step)
            optimiser.zero_grad()
            loss = program(data(), LENGTHS)
            loss = loss.loss if program is ours else loss
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[0] == pytest.approx(losses[1], rel=1e-10) and losses[1] == pytest.approx(losses[2], rel=1e-10)
    for one, other in zip(parameters(pairs[0]).values(), parameters(pairs[2]).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(TraceELBO, Trace_ELBO), (AnalyticELBO, TraceMeanField_ELBO)])
def test_elbos_are_those_of_pyro(ours: Any, theirs: Any) -> None:
    pair = small_pair("srnn")
    got: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for elbo, found in ((ours(5), got), (theirs(5, vectorize_particles=True, max_plate_nesting=2), expected)):
        torch.manual_seed(1)
        loss = elbo.differentiable_loss(pair.model, pair.guide, data(), LENGTHS)
        found += [loss, *torch.autograd.grad(loss, [*parameters(pair).values()])]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_evaluating_a_loss_leaves_no_gradients() -> None:
    pair = small_pair("dkf")
    svi = SVI(pair.model, pair.guide, Adam({"lr": 1e-2}), FIVO(num_particles=4, threshold=1.0))
    assert svi.evaluate_loss(data(), LENGTHS) > 0.0
    assert all(p.grad is None for p in parameters(pair).values())
    with pytest.raises(ValueError, match="num_particles=0"):
        FIVO(0)
