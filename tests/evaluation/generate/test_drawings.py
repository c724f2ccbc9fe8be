"""What evaluation.generate draws of a run on pen strokes: points, lengths, and ink."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from corpora.recipes.strokes import positions
from evaluation.generate.__main__ import main
from evaluation.generate.drawings import drawing_sheet
from inference.prediction.generation import generate
from inference.runs import Run
from models.nn.inputs import InputTransform
from tests.support.runs import saved_run
from tests.support.strokes import drawings

SMALL = ["model.z_dim=2", "model.x=[8]", "model.z=[4]", "model.h_dim=8", "model.h_z=[4]", "model.hz_x=[8]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A model with random weights on drawings of 12, 7 and 30 points."""
    root = tmp_path / "corpus"
    root.mkdir()
    np.savez(root / "made.npz", **drawings([12, 7, 30, 9, 11], [1, 16, 5, 17, 20]))
    fit = torch.tensor([[3.0, -4.0, 1.0], [1.0, 2.0, 0.0], [-7.0, 5.0, 0.0]])
    overrides = ["data.corpus=strokes", f"data.root={root}", "model.components=2", *SMALL]
    return saved_run(tmp_path / "run", "vrnn", *overrides, fit=fit)


def generated(run: Run, *arguments: object) -> int:
    return main([str(run.path), *map(str, arguments)])


def drawn(out: Path) -> list[NDArray[np.float32]]:
    with np.load(out / "drawings.npz") as held:
        return [held["points"][a:b] for a, b in zip(held["offsets"], held["offsets"][1:], strict=False)]


def test_drawings_are_what_the_model_generates_as_long_as_those_of_training(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert generated(run, "--sequences", 5, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["drawings.npz", "generate.json", "generated.png"]
    made = drawn(out)
    lengths = [len(points) - 1 for points in made]
    assert sorted(lengths[:3]) == [6, 11, 29], "each of the three once"
    assert lengths[3:] == lengths[:2], "and again where more are asked for"
    expected, _ = generate(run.model, 5, 29, x="sample")
    for i, points in enumerate(made):
        np.testing.assert_allclose(points, positions(expected[: lengths[i], i].numpy()), atol=1e-4)
        assert set(points[:, 2].tolist()) <= {0.0, 1.0} and (points[0] == 0).all()
    report: dict[str, Any] = json.loads((out / "generate.json").read_text())
    assert (report["shortest"], report["frames"], report["x"], report["array"]) == (6, 29, "sample", "drawings.npz")
    assert "5 sequences of 6 to 29 frames, the lengths of training drawings, x sample" in capsys.readouterr().out


def test_a_length_of_ones_own_needs_no_corpus(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tmp_path / "corpus")
    out = tmp_path / "out"
    assert generated(run, "--sequences", 2, "--frames", 4, "--out", out) == 0
    assert [len(points) for points in drawn(out)] == [5, 5]
    assert generated(run, "--sequences", 2) == 2
    assert "data.root" in capsys.readouterr().err


def test_a_mean_of_lifted_and_not_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert generated(run, "--x", "mean") == 2
    assert "--x mean" in capsys.readouterr().err


def test_drawings_that_run_away_are_left_out_with_what_stands_beside(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = InputTransform.inverse

    def runs_away(self: InputTransform, y: torch.Tensor) -> torch.Tensor:
        x = whole(self, y)
        x[3, 1, 0] = float("nan")  # the second drawing
        return x

    monkeypatch.setattr(InputTransform, "inverse", runs_away)
    assert generated(run, "--sequences", 3, "--out", tmp_path / "out") == 0
    assert len(drawn(tmp_path / "out")) == 2
    assert json.loads((tmp_path / "out" / "generate.json").read_text())["not_finite"] == [1]
    assert "1 of 3 sequences diverged" in capsys.readouterr().err
    monkeypatch.setattr(InputTransform, "inverse", lambda self, y: y * float("nan"))
    assert generated(run, "--sequences", 3, "--out", tmp_path / "none") == 2
    assert "all 3 sequences diverged" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_ink_is_where_the_pen_is_down() -> None:
    square = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 1], [0, 4, 0], [0, 1, 1], [9, 9, 1]], dtype=float)
    figure = drawing_sheet({"training data": [square, square], "generated": [square]})
    left, right = figure.subfigs
    assert [part.get_suptitle() for part in (left, right)] == ["training data", "generated"]
    axes = [a for part in (left, right) for a in part.axes if a.collections]
    assert len(axes) == 3
    for one in axes:
        (lines,) = one.collections
        assert isinstance(lines, LineCollection)
        strokes = [segment.tolist() for segment in lines.get_segments()]
        assert strokes == [[[0, 0], [4, 0], [4, 4]], [[0, 4], [0, 1]]]
        assert np.asarray(one.lines[0].get_xydata()).tolist() == [[9, 9]], "a stroke of one point is a dot"
        assert one.get_aspect() == 1.0
