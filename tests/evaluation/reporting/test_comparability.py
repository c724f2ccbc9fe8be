"""Which runs and reports are of the same data."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvae_pyro.errors import UserError
from evaluation.reporting.comparability import (
    SEQUENCE_SETTINGS,
    check_same_data,
    different_data,
    different_keys,
    run_names,
)
from inference.settings.resolve import resolve


@pytest.mark.parametrize(
    ("override", "key"),
    [("data.hop=64", "data.hop"), ("data.seed=3", "data.seed"), ("data.trim_db=null", "data.trim_db")],
)
def test_a_setting_that_changes_the_sound_makes_other_data(override: str, key: str) -> None:
    settings = resolve("dkf", overrides=["model.bins=65"])
    other = resolve("dkf", overrides=["model.bins=65", override])
    assert different_data(settings, other, ignored=SEQUENCE_SETTINGS) == [key]
    with pytest.raises(UserError, match=f"runs/b and runs/a .*{key}"):
        check_same_data({Path("runs/a"): settings, Path("runs/b"): other})


def test_settings_of_model_and_training_leave_the_data_the_same() -> None:
    settings = resolve("dkf", overrides=["model.bins=65"])
    other = resolve("vrnn", overrides=["model.bins=65", "optim.lr=1e-4", "seed=4", "data.cache=features"])
    assert different_data(settings, other) == []
    check_same_data({Path("runs/a"): settings, Path("runs/b"): other})
    assert different_data(settings, resolve("dkf", overrides=["model.bins=129"]))[-1] == "model.bins"


def test_sequences_differ_unless_that_is_ignored() -> None:
    settings, other = (resolve("dkf", overrides=[f"data.sequence_frames={n}"]) for n in (50, 100))
    assert different_data(settings, other) == ["data.sequence_frames"]
    assert different_data(settings, other, ignored=SEQUENCE_SETTINGS) == []


def test_reports_differ_in_keys_that_one_of_them_lacks() -> None:
    assert different_keys({"split": "test", "root": None}, {"split": "test"}, ["split", "root", "step"]) == []
    assert different_keys({"split": "test"}, {"root": "x"}, ["split", "root"]) == ["split", "root"]


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert run_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    report = tmp_path / "a" / "resynthesis.test.gen.json"
    report.parent.mkdir()
    report.touch()
    assert run_names([tmp_path / "b", report]) == ["b", "resynthesis.test.gen"]
    (tmp_path / "a" / "config.yaml").touch()
    assert run_names([tmp_path / "b", report]) == ["b", "a/resynthesis.test.gen"]
    with pytest.raises(UserError, match=f"{tmp_path / 'b'} .*twice"):
        run_names([tmp_path / "a", tmp_path / "b", tmp_path / "b"])
