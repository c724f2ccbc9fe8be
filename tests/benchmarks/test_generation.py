"""The benchmark of generation: that both forms draw the same, and what it reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.generation import generated, main
from tests.pairs import small_pair

SIZES = ["--frames", "3", "6", "--sequences", "2", "--bins", "9", "--repeats", "1"]
SMALL = ["model.x=[7]", "model.d_model=8", "model.ff=12", "model.layers=1"]


@pytest.mark.parametrize("name", ["light_dvae", "hit_dvae", "vrnn", "srnn", "dsae", "stcn", "ms_stcn", "ms_stcn-fixed"])
def test_both_forms_draw_the_same_frames(name: str) -> None:
    model = small_pair(name).model
    drawn = []
    for form in ("cached", "recomputed"):
        torch.manual_seed(5)
        drawn.append(generated(model, 20, 3, form))
    assert drawn[0].shape == (20, 3, 6)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-10, atol=1e-10)


def test_report_has_a_row_for_each_number_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "generation.json"
    assert main(["--model", "light_dvae", *SIZES, "--json", str(file), *SMALL]) == 0
    report = json.loads(file.read_text())
    assert list(report) == ["model", "sequences", "bins", "threads", "parameters", "rows"]
    assert [row["frames"] for row in report["rows"]] == [3, 6]
    for row in report["rows"]:
        assert row["ratio"] == pytest.approx(row["recomputed_s"] / row["cached_s"])
    assert "T=6: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "light"], "Did you mean 'light_dvae'"),
        (["--model", "vrnn", "--frames", "5", "0"], "--frames 0"),
        (["--model", "rvae", "model.causal=false", "--bins", "9"], "rvae"),
        (["--model", "vrnn", "--bins", "9", "model.bins=17"], "contradicts"),
        (["--model", "vrnn", *SIZES, "--json", "/dev/null/all.json"], "Cannot write"),
    ],
)
def test_mistakes_give_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
