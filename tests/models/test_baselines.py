"""The settings of the systems that MS-STCN's Table 1 quotes: their sizes, and that they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guides.registry import build_guide
from inference.handlers.auxiliary_cost import auxiliary_cost
from inference.objectives.elbo import Objective
from inference.settings.resolve import resolve
from inference.settings.tree import Settings
from models.registry import build_model

BASELINES = ["rnn_gmm", "wavenet_gmm", "vrnn_gmm", "srnn", "zforcing", "stcn_moderate"]
GMM = {"rnn_gmm", "wavenet_gmm", "vrnn_gmm", "stcn_moderate", "stcn_large"}


def _settings(name: str) -> Settings:
    return resolve(config_path=f"ms_stcn2021/{name}")


def _built(settings: Settings) -> tuple[Any, Any]:
    model = build_model(settings.model)
    return model, build_guide(model, settings.model, settings.guide)


def _count(name: str) -> int:
    """Each count is held in `tests.test_packaging`."""
    parameters = [p for module in _built(_settings(name)) for p in module.parameters()]
    return sum({id(p): p.numel() for p in parameters}.values())


@pytest.mark.parametrize("name", BASELINES)
def test_sizes_are_those_of_stcn_moderate_within_a_tenth(name: str) -> None:
    assert abs(_count(name) / _count("stcn_moderate") - 1.0) < 0.1
    assert abs(_count(f"small_{name}") / _count("small_fw200") - 1.0) < 0.2


@pytest.mark.parametrize("name", [*BASELINES, "stcn_large"])
def test_all_see_the_same_frames(name: str) -> None:
    for settings in (_settings(name), *([] if name == "stcn_large" else [_settings(f"small_{name}")])):
        data, model = settings.data, settings.model
        assert (data.frontend, data.frame_width, data.sequence_frames, data.rate) == ("waveform", 200, 40, 16000)
        assert (model.bins, model.input, model.normalise) == (200, "raw", "global")
        assert ("mixture" in model.likelihood) == (name in GMM)


@pytest.mark.parametrize("name", BASELINES)
def test_each_trains_on_samples(name: str) -> None:
    torch.manual_seed(0)
    settings = _settings(f"small_{name}")
    model, guide = _built(settings)
    x, lengths = torch.randn(40, 2, 200).cumsum(-1), torch.tensor([40, 30])
    model.fit_input([x[:, 0]])
    objective = Objective(model, guide)
    optimizer = torch.optim.Adam(objective.parameters(), 2e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        with auxiliary_cost(guide.auxiliary):
            bound = objective(x, lengths)
        (bound.loss / lengths.sum()).backward()
        optimizer.step()
        losses.append(float(bound.loss.detach()))
        assert all(torch.isfinite(v).all() for v in (bound.terms.elbo, *bound.terms.kl.values()))
    assert losses[-1] < losses[0]
