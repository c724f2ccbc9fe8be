"""Tensors of a training step are released when it ends. In a reference cycle they would stay until Python's garbage
collector runs, which counts objects and not their memory: hundreds of megabytes for batches of usual size.
"""

from __future__ import annotations

import gc

import pytest
from torch import Tensor

from inference.objectives.elbo import Objective
from tests.pairs import LENGTHS, PAIRS, data, small_pair


@pytest.mark.parametrize(("model_name", "guide_name"), PAIRS)
def test_no_tensor_of_a_step_is_left_to_the_garbage_collector(model_name: str, guide_name: str) -> None:
    pair = small_pair(model_name, guide_name)
    objective = Objective(pair.model, pair.guide)
    gc.disable()
    gc.freeze()  # what exists is not searched, which would take seconds
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        objective(data(), LENGTHS).loss.backward()
        gc.collect()
        left = [tuple(item.shape) for item in gc.garbage if isinstance(item, Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
    assert left == []
