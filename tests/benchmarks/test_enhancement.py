"""Reports of enhancement side by side."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.enhancement import cells, main, picture
from inference.observation.settings import NoiseSettings
from inference.posterior.problem import InferenceSettings

Figures = tuple[float, float, float]


def _report(
    folder: Path,
    run: str,
    method: str,
    estimate: Figures,
    changes: Sequence[float],
    noise: NoiseSettings | None = None,
    inference: InferenceSettings | None = None,
) -> Path:
    """A report of one method whose input has 10 dB, .8 and 2, and its rows."""
    folder.mkdir(parents=True)
    figures: dict[str, dict[str, float]] = {}
    for name, value, before in zip(("si_sdr", "estoi", "pesq_wb"), estimate, (10.0, 0.8, 2.0), strict=True):
        figures |= {name: {"mean": value}, f"{name}_input": {"mean": before}}
    report = {
        "evaluation": "enhance",
        "run": f"/runs/{run}",
        "root": "/data/pairs/noisy",
        "clean": "/data/pairs/clean",
        "noise": asdict(noise or NoiseSettings()),
        "inference": asdict(inference or InferenceSettings(seed=3)),
        "methods": {method: figures},
    }
    (folder / "enhance.json").write_text(json.dumps(report), encoding="utf-8")
    with (folder / "enhance.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerows([("file", "inference", "si_sdr_difference"), *((i, method, c) for i, c in enumerate(changes))])
    return folder / "enhance.json"


def test_table_has_priors_in_rows_and_methods_in_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        _report(tmp_path / "a", "vae", "point", (12.0, 0.9, 1.95), [1.0, 3.0]),
        _report(tmp_path / "b", "vae", "point", (13.0, 0.7, 2.5), [2.0, 4.0], NoiseSettings(span="0:0.3", rank=4)),
        _report(tmp_path / "c", "dkf", "vem", (9.0, 0.8, 2.0), [-1.0, -1.0], None, InferenceSettings(lr=5e-4)),
    ]
    assert main([str(file) for file in files]) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:7]]
    assert lines[0] == ["prior", "noise", "point", "vem, lr=0.0005"]
    assert lines[2][2] == "10.00 / .800 / 2.00"
    assert lines[3:] == [
        ["vae", "W learned", "12.00 / .900 / *1.95*", ""],
        ["vae", "W from 0:0.3 s, rank=4", "13.00 / *.700* / 2.50", ""],
    ]


def test_picture_has_a_point_for_each_mean_and_a_text_where_speech_is_lost(tmp_path: Path) -> None:
    files = [
        _report(tmp_path / "a", "vae", "point", (12.0, 0.9, 1.95), [1.0, 3.0]),
        _report(tmp_path / "b", "dkf", "vem", (-40.0, 0.1, 1.0), [-60.0, -40.0]),
    ]
    (axes,) = picture(cells(files)).axes
    points = [line for line in axes.lines if line.get_marker() == "o" and line.get_markersize() == 6]
    assert [x for line in points for x in np.asarray(line.get_xdata()).tolist()] == [2.0]
    assert [text.get_text() for text in axes.texts] == ["◂ -50 dB"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["vae, W learned", "dkf, W learned"]


def test_picture_of_one_method_has_noise_in_colours(tmp_path: Path) -> None:
    files = [
        _report(tmp_path / "a", "vae", "point", (12.0, 0.9, 1.95), [1.0, 3.0]),
        _report(tmp_path / "b", "vae", "point", (13.0, 0.7, 2.5), [2.0, 4.0], NoiseSettings(span="0:0.3")),
    ]
    figure = picture(cells(files))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["vae"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["W learned", "W from 0:0.3 s"]


def test_two_reports_of_one_cell_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [_report(tmp_path / x, "vae", "point", (12.0, 0.9, 2.1), [2.0]) for x in "ab"]
    assert main([str(file) for file in files]) != 0
    assert "another report has vae, W learned, point" in capsys.readouterr().err


def test_other_reports_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "resynthesis.json"
    file.write_text('{"evaluation": "resynthesis"}', encoding="utf-8")
    assert main([str(file)]) != 0
    assert "not a report of enhance with clean recordings" in capsys.readouterr().err
