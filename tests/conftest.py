"""What every test gets: shared corpora where they are, one thread, validated distributions, a clean
parameter store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared corpora and published weights; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared"
    root = Path(os.environ.get("DVAE_SHARED", default))
    if not (root / "corpora").is_dir():
        pytest.skip(f"no shared data at {root} (set DVAE_SHARED to the folder that holds corpora/)")
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda") is not None:
                item.add_marker(pytest.mark.skip(reason="needs a GPU of CUDA"))


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pyro.clear_param_store()
    pyro.enable_validation(True)
    yield
    torch.set_default_dtype(torch.float32)
