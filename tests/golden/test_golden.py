"""Training, generation, likelihoods and published checkpoints give the pinned numbers (`tests.golden.pin`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.registry import model_names
from tests.golden.comparing import differences
from tests.golden.pin import GOLDEN, SETTINGS, of_published, of_trained

PINNED = json.loads(GOLDEN.read_text())
SAME_WEIGHTS = torch.backends.cpu.get_cpu_capability().startswith("AVX")
"""Initial weights are drawn in float32, which PyTorch rounds alike with AVX2 and AVX512, but not without them."""
FIRST_STEP = 1e-12 if SAME_WEIGHTS else 1e-5
LATER = 1e-6 if SAME_WEIGHTS else 1e-5
"""Adam magnifies the rounding of the first step."""
READ_IN_SINGLE = 1e-5
"""Where a front end computes the data in float32."""


@pytest.mark.parametrize("name", SETTINGS)
def test_training_and_evaluation_give_the_pinned_numbers(name: str, tmp_path: Path) -> None:
    found, pinned = of_trained(name, tmp_path), PINNED["trained"][name]
    first, pinned_first = ({key: values[0] for key, values in one["steps"].items()} for one in (found, pinned))
    assert differences(first, pinned_first, FIRST_STEP) == []
    assert differences(found, pinned, LATER) == []


def test_every_registered_model_is_pinned_for_30_steps() -> None:
    assert set(model_names()) <= SETTINGS.keys()
    assert SETTINGS.keys() == PINNED["trained"].keys()
    for name, pinned in PINNED["trained"].items():
        assert {"loss", "grad_norm"} <= pinned["steps"].keys()
        assert name == "rnn" or len(pinned["steps"]) > 2, f"{name}: no KL"
        assert {len(values) for values in pinned["steps"].values()} == {30}


@pytest.mark.parametrize("tag", PINNED["published"])
def test_published_checkpoints_give_the_pinned_bounds(tag: str, shared: Path, tmp_path: Path) -> None:
    found = of_published(tag, shared / "published-weights", tmp_path)
    assert differences(found, PINNED["published"][tag], READ_IN_SINGLE) == []
