"""Settings of noise and inference on the command line."""

from __future__ import annotations

import pytest

from dvae_pyro.errors import UserError
from evaluation.restoration.settings import split_overrides


def test_settings_of_noise_are_not_those_of_the_run() -> None:
    settings, left = split_overrides(["noise.from=0:1", "dtype=float64", "inference.lr=0.1", "noise.gain=false"])
    assert left == ["dtype=float64"]
    assert (settings.noise.span, settings.noise.gain, settings.inference.lr) == ("0:1", False, 0.1)
    with pytest.raises(UserError, match=r"inference\.past"):
        split_overrides(["inference.past=yesterday"])
