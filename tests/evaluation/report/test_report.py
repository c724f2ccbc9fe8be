"""What the page says: its sections, figures, warnings, commands, and the limit of its size."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.compare.table import COLUMNS
from evaluation.report.__main__ import main
from evaluation.report.collect import collect, rows_of
from evaluation.report.decoding import choose
from evaluation.report.media import Budget
from evaluation.report.missing import missing, run_all
from evaluation.report.page import Page, Source
from evaluation.report.sections.metrics import csv_table, latex_table
from evaluation.report.sections.runs import differing_settings, training_hours
from evaluation.report.sections.verdict import paired, warnings
from evaluation.reporting.command_line import parse
from tests.evaluation.report.conftest import Written, curves

SECTIONS = [
    "verdict",
    "runs",
    "listen",
    "table",
    "training",
    "latents",
    "likelihood",
    "generation",
    "more",
    "reproduce",
]
ALONE = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source"}


class Tags(HTMLParser):
    """The ids of sections in order; every tag must be closed by its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.sections.append(str(dict(attrs)["id"]))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(runs: list[Path]) -> Page:
    folders = collect(runs)
    sources = [Source(run.name, run, run.entries[0] if run.entries else None, i) for i, run in enumerate(folders)]
    return Page(folders, sources, [], [], {}, Budget(1e9))


def test_ten_sections_in_order_and_well_formed(written: Written) -> None:
    tags = Tags()
    tags.feed(written.html)
    assert tags.sections == SECTIONS and tags.open == []


def test_page_needs_no_network(written: Written) -> None:
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", written.html) == []
    assert "default-src 'none'" in written.html and not re.search(r"@import|url\((?!#)", written.html)


def test_paired_difference_is_that_of_the_utterances(written: Written) -> None:
    vae, dkf = (run.entries[0] for run in collect(written.runs))
    a, b = (np.array([float(row["si_sdr"]) for _, row in sorted(rows_of(e.file).items())]) for e in (vae, dkf))
    difference = paired(vae, dkf, "si_sdr")
    assert difference.n == 6
    assert difference.mean == pytest.approx(np.mean(a - b))
    assert difference.stderr == pytest.approx(np.std(a - b, ddof=1) / np.sqrt(6))


def test_best_median_and_worst_are_chosen_and_two_by_chance(written: Written) -> None:
    entries = [run.entries[0] for run in collect(written.runs)]
    tables = [rows_of(entry.file) for entry in entries]
    means = {file: np.mean([float(t[file]["si_sdr"]) for t in tables]) for file in tables[0]}
    ranked = sorted(means, key=lambda file: means[file])
    chosen, others = choose(entries)
    assert {c.why: c.file for c in chosen[:3]} == {"best": ranked[5], "median": ranked[3], "worst": ranked[0]}
    assert [c.why for c in chosen[3:]] == ["by chance"] * 2
    assert sorted([*(c.file for c in chosen), *others]) == sorted(tables[0])
    assert choose(entries) == (chosen, others)


def test_warnings_of_seeds_training_and_unused_latents(written: Written) -> None:
    lines = "\n".join(warnings(page_of(written.runs)))
    assert "One seed of vae and dkf" in lines
    rise = "rose by 50 nats per frame in the last quarter of training, of 190 in all"
    assert f"dkf: undertrained: the validation bound {rise}" in lines and "best at step 200 of 200" in lines
    unused = f"vae: latent z is hardly used: KL {0.01 / 3:.2g} nats per dimension, below 0.01"
    assert unused in written.html and "dkf: latent" not in written.html
    assert "autoregressive" not in lines and "different" not in lines


def test_warnings_of_modes_and_of_other_data(written: Written, tmp_path: Path) -> None:
    for run in written.runs:
        shutil.copytree(run, tmp_path / run.name)
    for name, changes in (("vae", {"split": "valid"}), ("dkf", {"autoregressive": True})):
        path = tmp_path / name / "resynthesis.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    curves_file = tmp_path / "dkf" / "metrics.jsonl"
    curves_file.write_text("")
    lines = warnings(page_of([tmp_path / "vae", tmp_path / "dkf"]))
    assert any(line.startswith("different splits") for line in lines)
    assert any(line.startswith("dkf: autoregressive, evaluated with --mode gt") for line in lines)
    assert "dkf: no validation in metrics.jsonl" in lines


def test_latex_and_csv_have_the_figures_of_the_reports(written: Written) -> None:
    entries = [run.entries[0] for run in collect(written.runs)]
    rows = list(csv.DictReader(io.StringIO(csv_table(entries))))
    assert [row["run"] for row in rows] == ["vae", "dkf"]
    for entry, row in zip(entries, rows, strict=True):
        for name in COLUMNS:
            figure = entry.report["metrics"][name]
            assert row[name] == ("" if figure["mean"] is None else str(figure["mean"]))
            assert row[f"{name}_n"] == str(figure["n"])
    latex = latex_table(entries)
    si_sdr = entries[0].report["metrics"]["si_sdr"]
    assert f"{si_sdr['mean']:.2f}" in latex and f"\\pm {si_sdr['stderr']:.2f}" in latex
    body = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert {line.count("&") for line in body} == {len(COLUMNS)} and "--" in latex  # PESQ was left out
    assert (written.folder / "table.tex").read_text() == latex
    assert (written.folder / "table.csv").read_text() == csv_table(entries)


def test_only_settings_that_differ_are_listed(written: Written) -> None:
    settings = dict(differing_settings(collect(written.runs)))
    assert settings["train.beta"] == ["1.0", "0.5"]
    assert not {"seed", "run", "model.name", "data.corpus", "model.bins"} & settings.keys()


def test_time_of_training_is_frames_over_speed(written: Written) -> None:
    run = collect(written.runs)[0]
    frames = run.settings.data.sequence_frames
    assert frames is not None
    hours = 200 * run.settings.train.batch_size * frames / 1000.0 / 3600.0
    assert training_hours(run) == pytest.approx(hours)


def test_size_is_limited_and_sounds_are_left_out_for_it(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = len(written.html.encode())
    sounds = written.html.count('class="sound"')
    assert sounds == 3 * 6
    assert main([*map(str, written.runs), "--out", str(tmp_path), "--max-mb", f"{0.7 * whole / 1e6:.3f}"]) == 0
    page = (tmp_path / "index.html").read_text()
    assert len(page.encode()) <= 0.7 * whole
    assert 0 < page.count('class="sound"') < sounds
    assert "left out by --max-mb" in capsys.readouterr().err
    assert main([*map(str, written.runs), "--out", str(tmp_path), "--max-mb", "0.01"]) == 2
    assert "the page without sounds has" in capsys.readouterr().err


def test_missing_reports_are_named_with_commands_that_parse(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    (vae, dkf), page = collect(written.runs), written.html
    names = [item.evaluation for item in missing(vae)]
    assert names == ["likelihood", "inference_gap", "generate", "frechet", "predictive_checks"]
    for item in (*missing(vae), *missing(dkf)):
        assert item.command in page
        module = import_module(f"evaluation.{item.evaluation}.__main__")
        parsed: list[Any] = []

        def launch(parser: Any, argv: Any, work: str, several: bool = False, into: list[Any] = parsed) -> int:
            into.append(parse(parser, argv, several=several))
            return 0

        monkeypatch.setattr(module, "launch", launch)
        assert module.main(item.arguments) == 0
        assert parsed[0][0].run == Path(item.arguments[0])


def test_run_missing_runs_them_and_reports_failures(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    class Done:
        returncode = 0

    def run(command: list[str], **_: object) -> Done:
        commands.append(command)
        done = Done()
        done.returncode = 1 if "evaluation.frechet" in command else 0
        return done

    monkeypatch.setattr(subprocess, "run", run)
    failed = run_all(collect(written.runs))
    assert [command[3] for command in commands[:2]] == ["evaluation.likelihood", "evaluation.inference_gap"]
    assert len(commands) == 10 and len(failed) == 2 and all("frechet" in line and "status 1" in line for line in failed)


def test_run_without_reports_still_has_a_page(written: Written, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(written.runs[0], bare)
    for name in ("resynthesis.json", "resynthesis.csv"):
        (bare / name).unlink()
    curves(bare, kl=1.0)
    assert main([str(bare), "--out", str(tmp_path / "page")]) == 0
    tags = Tags()
    page = (tmp_path / "page" / "index.html").read_text()
    tags.feed(page)
    assert tags.sections == SECTIONS and f"python -m evaluation.resynthesis {bare}" in page


def test_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "page")]) == 2
    assert "not a run folder" in capsys.readouterr().err and not (tmp_path / "page").exists()
