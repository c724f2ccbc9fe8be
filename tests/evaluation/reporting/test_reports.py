"""Reports are whole, strict and exact."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from dvae_pyro.errors import UserError
from evaluation.reporting.report import read_json, summarise, write_csv, write_json


def test_standard_error_is_that_of_the_mean_of_finite_values() -> None:
    values = np.random.RandomState(0).standard_normal(50)
    found = summarise([*values, math.nan, math.inf])
    assert found.mean == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert found.n == 50


def test_no_value_and_one_value_have_no_standard_error() -> None:
    assert summarise([math.nan]) == (None, None, 0)
    assert summarise([2.5]) == (2.5, None, 1)


def test_csv_keeps_every_digit_and_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.csv"
    value = 0.1 + 0.2
    write_csv(path, ["file", "stoi"], [{"file": 'a, "b".wav', "stoi": value}, {"file": "ø", "stoi": math.nan}])
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["file"] == 'a, "b".wav' and float(rows[0]["stoi"]) == value
    assert rows[1] == {"file": "ø", "stoi": "nan"}


def test_json_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"mean": 1.5, "name": "é"})
    assert read_json(path, "") == {"mean": 1.5, "name": "é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"mean": math.nan})
    assert json.loads(path.read_text(encoding="utf-8"))["mean"] == 1.5
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_report_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(UserError, match=r"x\.json.* list.*Make it again"):
        read_json(tmp_path / "x.json", "Make it again.")
