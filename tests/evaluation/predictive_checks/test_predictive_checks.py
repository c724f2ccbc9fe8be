"""Checks of replications that are known beforehand, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corpora.loading.sequences import Prepared
from evaluation.predictive_checks import checks
from evaluation.predictive_checks.__main__ import main
from evaluation.predictive_checks.checks import check, metrics, p_value
from evaluation.predictive_checks.plots import pause_counts, pauses_by_tenth
from evaluation.predictive_checks.replications import Draws
from evaluation.predictive_checks.spectra import STATISTICS, Tracks
from inference.runs import create, load_run, write_run
from inference.settings.resolve import resolve

SMALL = ["model.bins=33", "model.z_dim=2", "data.hop=64", "data.trim_db=null", "data.corpus=folder"]


def test_p_values_count_ties_half_and_need_a_statistic() -> None:
    assert p_value(2.0, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(0.5 + 0.125)
    assert p_value(2.0, np.array([1.0, math.nan, 3.0])) == pytest.approx(0.5)
    assert p_value(math.nan, np.array([1.0])) is None and p_value(1.0, np.array([math.nan])) is None


def test_louder_replications_are_found_louder_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Posterior replications 3 dB and 6 dB above the data; prior replications that are the data."""
    settings = resolve("dkf", overrides=SMALL)
    model, guide = create(settings)
    write_run(tmp_path / "run", settings, model, guide)
    run = load_run(tmp_path / "run")
    noise = torch.Generator().manual_seed(0)
    items = [Prepared(torch.empty(t, 33).exponential_(generator=noise), f"{t}.wav", "s", 0) for t in (20, 31, 12)]

    def louder(model: Any, guide: Any, x: Tensor, lengths: Tensor, draws: int, **how: str) -> Iterator[Draws]:
        for gain in (2.0, 4.0):
            yield Draws({}, x, x, (gain * x)[None])

    def same(model: Any, lengths: Tensor, draws: int, dim: int) -> Iterator[Tensor]:
        longest = torch.nn.utils.rnn.pad_sequence([i.x for t in lengths for i in items if len(i.x) == int(t)])
        yield torch.stack([longest, longest])

    monkeypatch.setattr(checks, "posterior_draws", louder)
    monkeypatch.setattr(checks, "prior_draws", same)
    found = metrics(check(run, items, 2, rate=16000.0, hop=64))
    level = found["energy_mean"]
    mean_gain = 10 * math.log10(8.0) / 2
    assert level["posterior"]["mean"] == pytest.approx(level["observed"] + mean_gain, abs=1e-5)
    assert level["posterior"]["p"] == 1.0 and level["prior"]["p"] == 0.5
    for statistic in set(STATISTICS) - {"energy_mean"}:
        if found[statistic]["observed"] is not None:
            assert found[statistic]["posterior"]["mean"] == pytest.approx(found[statistic]["observed"], abs=1e-5)


def test_counts_and_places_of_pauses_by_hand() -> None:
    energy = np.zeros((1, 30))
    energy[0, [2, 3, 10, 25]] = -50.0  # utterances of 20 and 10 frames: pauses of 2, 1 and 1 frames
    tracks = Tracks(energy, energy)
    assert pause_counts(tracks, (20, 10), np.array([1.0, 2.0, 5.0])).tolist() == [[2.0, 1.0]]
    expected = [0.0, 50.0, 0.0, 0.0, 0.0, 25.0 + 50.0, 0.0, 0.0, 0.0, 0.0]
    assert (100.0 * pauses_by_tenth(tracks, (20, 10))[0]).tolist() == pytest.approx(expected)


def test_the_command_writes_report_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    noise = np.random.default_rng(0)
    for k in range(3):
        (tmp_path / "test" / "s").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "test" / "s" / f"{k}.wav", 0.1 * noise.standard_normal(4000 + 900 * k), 16000)
    settings = resolve("vrnn", overrides=[*SMALL, f"data.root={tmp_path}"])
    model, guide = create(settings)
    model.fit_input([torch.rand(20, 33)])
    write_run(tmp_path / "run", settings, model, guide)
    picture = tmp_path / "check.png"
    arguments = [str(tmp_path / "run"), "--particles", "20", "--sequences", "2", "--picture", str(picture)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "2 utterances" in out and "a weaker check" in out
    report = json.loads((tmp_path / "run" / "predictive_checks.json").read_text())
    assert set(report["metrics"]) == set(STATISTICS) and report["num_sequences"] == 2
    assert report["metrics"]["energy_mean"]["posterior"]["low"] <= report["metrics"]["energy_mean"]["posterior"]["high"]
    assert picture.stat().st_size > 10_000
    assert (tmp_path / "run" / "predictive_checks.png").is_file()
