"""Runs side by side, from reports made up for the purpose; one utterance from real, small runs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dvae_pyro.errors import UserError
from evaluation.compare.__main__ import main
from evaluation.compare.plots import comparison_picture
from evaluation.compare.spectrograms import resyntheses
from evaluation.compare.table import COLUMNS, best_rows, differences, entries, report_of, table
from evaluation.resynthesis.__main__ import main as resynthesis
from evaluation.resynthesis.metrics import METRICS
from inference.runs import create, write_run
from inference.settings.resolve import resolve
from tests.sounds import RATE, voice

FRONTEND = {"name": "stft", "dim": 257, "rate": 16000, "window": 512, "hop": 256, "trim_db": 30.0}


def made_up(folder: Path, level: float, **changes: object) -> Path:
    """A run whose every figure is `level`, but for those given."""
    folder.mkdir(parents=True)
    report: dict[str, Any] = {
        "evaluation": "resynthesis",
        "run": str(folder),
        "corpus": "folder",
        "root": "data/speech",
        "data_seed": 0,
        "split": "test",
        "num_sequences": 40,
        "mode": "gt",
        "latents": "mean",
        "checkpoint": "best.pt",
        "step": 600,
        "model": "dkf",
        "guide": "paper",
        "parameters": 397729,
        "autoregressive": False,
        "frontend": FRONTEND,
        "metrics": {name: {"mean": level, "stderr": 0.01, "n": 40} for name in METRICS},
        "pesq_unscored": {"count": 0, "files": []},
    }
    (folder / "resynthesis.json").write_text(json.dumps(report | changes))
    return folder


def test_the_best_of_a_column_is_least_or_greatest_as_the_figure_says(tmp_path: Path) -> None:
    found = entries([made_up(tmp_path / name, level) for name, level in (("a", 0.4), ("b", 0.5), ("c", 0.3))])
    best = dict(zip(COLUMNS, best_rows(found), strict=True))
    assert best == {
        "rmse_scaled": 2,
        "si_sdr": 1,
        "pesq_wb": 1,
        "pesq_nb": 1,
        "stoi": 1,
        "estoi": 1,
        "is_per_frame": 2,
        "kl_per_frame": None,
    }


def test_table_has_a_row_per_run_and_every_pesq_by_its_band(tmp_path: Path) -> None:
    found = entries([made_up(tmp_path / "vae", 0.4, model="vae"), made_up(tmp_path / "dkf", 0.5, guide="all-markov")])
    lines = table(found).splitlines()
    assert lines[0].split()[:4] == ["run", "model", "guide", "parameters"]
    assert "PESQ wide" in lines[0] and "PESQ narrow" in lines[0] and "RMSE x1e-2" in lines[0]
    assert lines[2].split()[:6] == ["vae", "vae", "paper", "397,729", "*40.00", "±1.00"]
    assert lines[3].split()[:3] == ["dkf", "dkf", "all-markov"]
    assert len(lines) == 4


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [made_up(tmp_path / seed / "dkf", 0.1) for seed in ("seed0", "seed1")]
    assert [entry.name for entry in entries(paths)] == ["seed0/dkf", "seed1/dkf"]
    with pytest.raises(UserError, match="seed0/dkf"):
        entries([paths[0], paths[0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": "voicebank", "root": None, "num_sequences": 824}, "different corpora"),
        ({"split": "valid"}, "different splits"),
        ({"num_sequences": 39}, "different numbers of utterances"),
        ({"latents": "sample"}, "different latents"),
        ({"root": "data/other"}, "different roots"),
        ({"data_seed": 1}, "different seeds of the data"),
        ({"frontend": FRONTEND | {"rate": 8000, "hop": 128, "window": 256}}, "different front ends, which resample"),
        ({"frontend": FRONTEND | {"trim_db": None}}, "different front ends, which resample or trim"),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_is_called_best(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    found = entries([made_up(tmp_path / "a", 0.1), made_up(tmp_path / "b", 0.2, **changes)])
    (line,) = differences(found)
    assert message in line and "a" in line and "b" in line
    assert set(best_rows(found)) == {None}
    assert report_of(found)["warnings"] == [line]


def test_a_mode_matters_to_models_that_see_the_past_alone(tmp_path: Path) -> None:
    vae = made_up(tmp_path / "vae", 0.1, mode="gt")
    free = made_up(tmp_path / "free", 0.2, mode="gen", autoregressive=True)
    forced = made_up(tmp_path / "forced", 0.3, mode="gt", autoregressive=True)
    assert differences(entries([vae, free])) == []
    (line,) = differences(entries([vae, free, forced]))
    assert "different modes" in line and "vae" not in line
    assert table(entries([vae, free, forced])).splitlines()[0].split()[3] == "mode"


def test_other_front_ends_make_figures_per_frame_incomparable_alone(tmp_path: Path) -> None:
    other = {**FRONTEND, "dim": 513, "window": 1024}
    found = entries([made_up(tmp_path / "a", 0.1), made_up(tmp_path / "b", 0.2, frontend=other)])
    assert "different front ends" in differences(found)[0]
    best = dict(zip(COLUMNS, best_rows(found), strict=True))
    assert best["is_per_frame"] is None and best["si_sdr"] == 1


def test_a_run_that_was_not_evaluated_is_told_how(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"resynthesis\.json.*python -m evaluation\.resynthesis .*run"):
        entries([tmp_path / "run"])
    (tmp_path / "run" / "resynthesis.json").write_text('{"metrics"')
    with pytest.raises(UserError, match=r"resynthesis\.json.*JSON"):
        entries([tmp_path / "run"])
    (tmp_path / "run" / "resynthesis.json").write_text("{}")
    with pytest.raises(UserError, match="run, metrics, model"):
        entries([tmp_path / "run"])
    with pytest.raises(UserError, match="nowhere"):
        entries([tmp_path / "nowhere"])


def test_picture_has_a_column_per_figure_and_a_dot_per_run(tmp_path: Path) -> None:
    none = {name: {"mean": None, "stderr": None, "n": 0} for name in METRICS}
    found = entries(
        [made_up(tmp_path / "a", 0.1), made_up(tmp_path / "b", 0.2), made_up(tmp_path / "c", 0, metrics=none)]
    )
    base, *columns = comparison_picture(found).axes
    assert {"a", "b", "c"} <= {text.get_text() for text in base.texts}
    titles = [axes.get_title().splitlines()[0] for axes in columns]
    assert titles == [METRICS[name].label for name in COLUMNS]
    for axes, name in zip(columns, COLUMNS, strict=True):
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        places = [float(line.get_xdata()[0]) for line in dots]  # type: ignore[index,arg-type]  # of an untyped axis
        assert places == pytest.approx([0.1 * METRICS[name].scale, 0.2 * METRICS[name].scale])
        assert [text.get_text() for text in axes.texts][2] == "none"


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        made_up(tmp_path / "a", 0.1),
        made_up(tmp_path / "b", 0.2, pesq_unscored={"count": 2, "files": ["x", "y"]}),
    ]
    files = {kind: tmp_path / f"table.{kind}" for kind in ("json", "csv", "png", "svg")}
    arguments = [*map(str, runs), "--json", str(files["json"]), "--csv", str(files["csv"]), "--picture"]
    for kind in ("png", "svg"):
        assert main([*arguments, str(files[kind])]) == 0
        assert files[kind].stat().st_size > 5000
    out = capsys.readouterr().out
    assert "b: PESQ found no speech in 2 utterances" in out and "warning" not in out
    report = json.loads(files["json"].read_text())
    assert report["corpus"] == "folder" and report["runs"][1]["metrics"]["stoi"]["mean"] == 0.2
    with files["csv"].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["run"] for row in rows] == ["a", "b"]
    assert float(rows[1]["pesq_nb"]) == 0.2 and float(rows[1]["pesq_nb_stderr"]) == 0.01


def test_a_picture_of_no_known_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made_up(tmp_path / "a", 0.1)), "--picture", str(tmp_path / "table.doc")]) == 2
    assert "'.doc'" in capsys.readouterr().err


def test_a_checkpoint_newer_than_its_figures_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up(tmp_path / "a", 0.1)
    (run / "best.pt").touch()
    os.utime(run / "resynthesis.json", (1, 1))
    assert main([str(run)]) == 0
    assert "newer than resynthesis.json" in capsys.readouterr().err


def test_a_report_elsewhere_is_compared_though_its_run_has_none(tmp_path: Path) -> None:
    run = made_up(tmp_path / "a", 0.1)
    (run / "best.pt").touch()
    (run / "resynthesis.json").rename(tmp_path / "gen.json")
    assert main([str(tmp_path / "gen.json")]) == 0


def keyed(run: Path, name: str, **changes: object) -> None:
    """A further report in a run folder."""
    report = json.loads((run / "resynthesis.json").read_text())
    (run / name).write_text(json.dumps(report | changes))


def test_modes_are_not_mixed_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt, gen = (made_up(tmp_path / mode, 0.3, mode=mode, autoregressive=True) for mode in ("gt", "gen"))
    assert main([str(gt), str(gen)]) == 2
    assert "different modes (gt: gt, gen: gen)" in capsys.readouterr().err
    assert main([str(gt), str(gen), "--mix-modes"]) == 0
    assert "different modes" in capsys.readouterr().out
    keyed(gt, "resynthesis.test.gen.json", mode="gen")
    assert main([str(gt), str(gen), "--mode", "gen"]) == 0
    out = capsys.readouterr().out
    assert "mode gen" in out and "different" not in out
    without_past = made_up(tmp_path / "vae", 0.2, mode="gt")
    assert main([str(gt), str(without_past), "--mode", "gen"]) == 0
    out = capsys.readouterr().out
    assert "vae" in out and "different" not in out


def test_which_report_of_a_run_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up(tmp_path / "run", 0.3, autoregressive=True)
    for split in ("valid", "train"):
        keyed(run, f"resynthesis.{split}.gt.json", split=split)
    assert entries([run])[0].file.name == "resynthesis.json"
    assert entries([run], split="valid")[0].file.name == "resynthesis.valid.gt.json"
    assert main([str(run), "--mode", "gen"]) == 2
    assert "--mode gen" in capsys.readouterr().err
    keyed(run, "resynthesis.valid.gen.json", split="valid", mode="gen")
    assert main([str(run), "--split", "valid"]) == 2
    assert "resynthesis.valid.gen.json" in capsys.readouterr().err
    (run / "resynthesis.json").unlink()
    assert entries([run], split="train")[0].file.name == "resynthesis.train.gt.json"
    assert main([str(tmp_path / "rnu")]) == 2
    assert f"Did you mean '{tmp_path}/run'?" in capsys.readouterr().err


@pytest.fixture
def evaluated(tmp_path: Path) -> list[Path]:
    """Three small runs with different front ends, evaluated on two utterances."""
    import soundfile

    for name, seconds in (("one", 0.7), ("two", 0.8)):
        path = tmp_path / "speech" / "test" / name / f"{name}.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, voice(seconds), RATE)
    runs = []
    for bins in (65, 129, 33):
        small = [f"model.bins={bins}", f"data.hop={bins // 2}", "model.z_x=[5]", "guide.x_z=[5]"]
        settings = resolve("vae", overrides=small)
        model, guide = create(settings)
        model.fit_input([torch.rand(9, bins)])
        runs.append(tmp_path / f"vae{bins}")
        write_run(runs[-1], settings, model, guide)
        where = ["--corpus", "folder", "--root", str(tmp_path / "speech"), "--jobs", "0"]
        assert resynthesis([str(runs[-1]), *where]) == 0
    return runs


def test_one_utterance_beside_its_resyntheses(evaluated: list[Path], tmp_path: Path) -> None:
    found = resyntheses(entries(evaluated), "two")
    assert found.file == "test/two/two.wav"
    *panels, bar = found.picture().axes
    assert [axes.get_title(loc="left") for axes in panels] == ["reference", "vae65", "vae129", "vae33"]
    assert {axes.images[0].get_clim() for axes in panels} == {(-80.0, 0.0)}
    for axes in panels:
        assert axes.get_xlim()[1] == pytest.approx(0.8, abs=0.02) and axes.get_ylim() == (0.0, 8.0)
    assert [axes.get_ylabel() for axes in panels] == ["frequency, kHz", "", "frequency, kHz", ""]
    assert [axes.get_xlabel() for axes in panels] == ["", "", "time, s", "time, s"]
    assert "dB" in bar.get_ylabel()
    drawn = tmp_path / "p.png"
    assert main([*map(str, evaluated), "--picture", str(drawn), "--utterance", "test/two/two.wav"]) == 0
    assert drawn.stat().st_size > 5000 and (tmp_path / "p-two.png").stat().st_size > 5000


def test_sounds_of_an_utterance_are_on_one_scale(
    evaluated: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    runs, out = list(map(str, evaluated)), tmp_path / "sounds"
    picture = ["--picture", str(tmp_path / "p.png")]
    assert main([*runs, *picture, "--utterance", "two", "--out", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        f"two-{name}.flac" for name in ("reference", "vae129", "vae33", "vae65")
    ]
    original, rate = soundfile.read(tmp_path / "speech" / "test" / "two" / "two.wav")
    written, written_rate = soundfile.read(out / "two-reference.flac")
    assert rate == written_rate
    scale = written @ original[: len(written)] / (original @ original)
    assert np.abs(written - scale * original[: len(written)]).max() < 2.0 / 2**15
    found = resyntheses(entries(evaluated), "two").panels[1]
    decoded, _ = soundfile.read(out / "two-vae65.flac")
    assert np.abs(decoded - scale * found.samples).max() < 2.0 / 2**15
    assert main([*runs, "--out", str(out)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "message"), [("tow", "--utterance tow"), (".wav", "one.wav, .*two.wav")])
def test_an_utterance_that_is_not_there_is_refused(evaluated: list[Path], wanted: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resyntheses(entries(evaluated), wanted)
