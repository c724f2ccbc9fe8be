"""Settings of noise and inference on the command line."""

from __future__ import annotations

import pytest

from dvae_pyro.errors import UserError
from evaluation.restoration.settings import split_overrides


def test_settings_of_noise_are_not_those_of_the_run() -> None:
    settings, left = split_overrides(["noise.from=0:1", "dtype=float64", "inference.lr=0.1", "noise.gain=false"])
    assert left == ["dtype=float64"]
    assert (settings.noise.span, settings.noise.gain, settings.inference.lr) == ("0:1", False, 0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inference.past=yesterday", "inference.past takes one of own, sampled, got 'yesterday'"),
        ("inference.draws=0", "inference.draws=0: expected at least 1"),
        ("inference.lr=0", "inference.lr=0.0: expected a number above 0"),
        ("inference.step_size=-1", "inference.step_size=-1.0: expected a number above 0"),
        ("inference.burn_in=1", "inference.burn_in=1: expected a fraction from 0 to below 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        split_overrides([override])
    assert message in str(refusal.value)
