"""The names of reports, and which command may replace which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, evaluation_parser, parse
from evaluation.reporting.outputs import find_reports, outputs_of
from inference.settings.resolve import load_run_settings
from tests.support.runs import saved_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was trained here, on corpus ``folder``."""
    small = ["model.bins=33", "data.hop=16", "model.z_x=[3]", "guide.x_z=[3]", "data.corpus=folder", "data.root=data/a"]
    path = saved_run(tmp_path / "run", "vae", *small).path
    (path / "metrics.jsonl").write_text("{}\n")
    return path


def named(run: Path, *words: str, name: str = "resynthesis", without: tuple[str, ...] = ()) -> str:
    """The name of the report of a command line."""
    request, _ = parse(evaluation_parser(name, "", without), [str(run), *words])
    settings = load_run_settings(run, request.overrides)
    return outputs_of(name, request, settings).json.name


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ([], ""),
        (["--split", "test", "--mode", "gt", "--latents", "mean", "--checkpoint", "best.pt"], ""),
        (["--corpus", "folder", "--root", "data/a"], ""),
        (["--root", "data/../data/a", "dtype=float64"], ""),
        (["--mode", "gen"], ".test.gen"),
        (["evaluation.mode=gen"], ".test.gen"),
        (["--split", "dev"], ".valid.gt"),
        (["--latents", "sample"], ".test.gt.sample"),
        (["--checkpoint", "last.pt"], ".test.gt.last"),
        (["--root", "data/other corpus"], ".folder-other-corpus.test.gt"),
        (["--corpus", "fsdd", "--split", "valid"], ".fsdd.valid.gt"),
        (
            ["--corpus", "polyphonic", "--set", "JSB", "data.frontend=frames", "data.trim_db=null", "data.hop=null"],
            ".polyphonic-JSB.test.gt",
        ),
    ],
)
def test_a_report_is_named_by_what_differs_from_the_runs_own_defaults(run: Path, words: list[str], key: str) -> None:
    assert named(run, *words) == f"resynthesis{key}.json"


def test_only_what_an_evaluation_depends_on_is_in_its_names(run: Path) -> None:
    assert named(run, "--split", "valid", name="probes", without=("mode", "latents")) == "probes.valid.json"
    assert named(run, "evaluation.mode=gen", name="probes", without=("mode", "latents")) == "probes.json"


def test_a_run_without_a_corpus_of_its_own_gives_the_plain_names_to_the_first(run: Path) -> None:
    (run / "metrics.jsonl").write_text("")  # as that of a published checkpoint
    assert named(run, "--root", "data/first") == "resynthesis.json"
    (run / "resynthesis.json").write_text(json.dumps({"corpus": "folder", "root": "data/first"}))
    assert named(run, "--root", "data/first") == "resynthesis.json"
    assert named(run, "--root", "data/second") == "resynthesis.folder-second.test.gt.json"


def written(run: Path, *words: str, **content: Any) -> dict[str, Any]:
    """Write a report as a command would."""
    parser = evaluation_parser("resynthesis", "")
    parser.add_argument("--draws", type=int, default=1)
    request, _ = parse(parser, [str(run), *words])
    outputs = outputs_of("resynthesis", request, load_run_settings(run, request.overrides))
    outputs.write({"evaluation": "resynthesis", **outputs.key, **content})
    report: dict[str, Any] = json.loads(outputs.json.read_text())
    return report


def test_a_report_is_replaced_by_the_same_command_or_by_force(run: Path) -> None:
    first = written(run, "--draws", "2", "dtype=float64", figure=1)
    assert first["command"].endswith("--draws 2 dtype=float64") and first["arguments"]["draws"] == 2
    assert written(run, "dtype=float64", "--draws", "2", "--device", "cpu", "--mode", "gt", figure=2)["figure"] == 2
    for words, differ in ((["--draws", "3", "dtype=float64"], "--draws"), (["--draws", "2"], "settings")):
        with pytest.raises(UserError, match=rf"resynthesis\.json .*{differ}"):
            written(run, *words)
    assert json.loads((run / "resynthesis.json").read_text())["figure"] == 2
    assert written(run, "--draws", "3", "--force", figure=3)["figure"] == 3


def test_reports_with_another_key_stand_beside_each_other(run: Path) -> None:
    for words in ([], ["--mode", "gen"], ["--split", "valid"]):
        written(run, *words)
    first, *others = [path.name for path in find_reports(run, "resynthesis")]
    assert first == "resynthesis.json"
    assert sorted(others) == ["resynthesis.test.gen.json", "resynthesis.valid.gt.json"]


def test_equal_names_of_other_folders_are_not_taken_for_the_same(run: Path) -> None:
    written(run, "--root", "x/speech")
    with pytest.raises(UserError, match=r"resynthesis\.folder-speech\.test\.gt\.json .*root"):
        written(run, "--root", "y/speech")


def test_reports_of_earlier_versions_and_broken_ones_can_be_replaced(run: Path) -> None:
    path = run / "resynthesis.json"
    path.write_text(json.dumps({"corpus": "folder", "root": "data/a", "split": "test", "overrides": []}))
    written(run)
    path.write_text(json.dumps({"split": "test", "overrides": ["dtype=float64"]}))
    with pytest.raises(UserError, match=r"resynthesis\.json .*settings"):
        written(run)
    path.write_text("{")
    written(run)


def test_what_lies_beside_a_report_has_its_key(run: Path) -> None:
    settings = load_run_settings(run)
    plain, other = (outputs_of("X", Request(run, mode=mode), settings) for mode in (None, "gen"))
    assert (plain.beside("audio").name, other.beside("audio").name) == ("audio", "audio.test.gen")
    assert (other.csv.name, other.picture.name) == ("X.test.gen.csv", "X.test.gen.png")
    assert other.names("csv", "png") == f"{other.json}, X.test.gen.csv and X.test.gen.png"
