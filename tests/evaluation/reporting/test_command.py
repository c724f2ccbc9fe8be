"""The command line that evaluations share: names of splits and sets."""

from __future__ import annotations

import importlib
import re
from argparse import Namespace
from pathlib import Path

import pytest

import evaluation
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import check_minimum, evaluation_parser, parse


@pytest.mark.parametrize(("word", "split"), [("dev", "valid"), ("val", "valid"), ("Valid", "valid"), ("test", "test")])
def test_a_split_goes_by_its_usual_names(word: str, split: str) -> None:
    request, _ = parse(evaluation_parser("likelihood", ""), ["runs/a", "--split", word])
    assert request.split == split


def test_a_word_that_is_no_split_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(evaluation_parser("likelihood", ""), ["runs/a", "--split", "eval"])
    assert "invalid choice: 'eval'" in capsys.readouterr().err


def test_a_set_is_named_as_a_flag_and_another_corpus_forgets_the_runs() -> None:
    request, _ = parse(evaluation_parser("likelihood", ""), ["runs/a", "--set", "strings"])
    assert request.run == Path("runs/a") and request.overrides == ('data.subset="strings"',)
    request, _ = parse(evaluation_parser("likelihood", ""), ["runs/a", "--corpus", "fsdd", "--set", "strings"])
    assert request.overrides[0] == 'data.corpus="fsdd"' and request.overrides[-1] == 'data.subset="strings"'
    assert {"data.root=null", "data.layout=null", "data.channel=null"} <= set(request.overrides)


def test_numbers_below_the_least_are_refused_by_name_and_value() -> None:
    options = Namespace(num=2, sizes=[3, 1], num_rows=None)
    check_minimum(options, num=2, sizes=1, num_rows=5, absent=1)
    for name, least, message in (("num", 3, "--num 2"), ("sizes", 2, "--sizes 1"), ("num_rows", 1, "--num-rows 0")):
        with pytest.raises(UserError, match=message):
            check_minimum(Namespace(**{**vars(options), "num_rows": 0}), **{name: least})


def test_the_mean_of_latents_is_refused_where_samples_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = evaluation_parser("likelihood", "", samples=True)
    assert "--latents" not in parser.format_help()
    assert parse(parser, ["runs/a", "--latents", "sample"])[0].latents == "sample"
    with pytest.raises(SystemExit):
        parse(parser, ["runs/a", "--latents", "mean"])
    assert "'mean'" in capsys.readouterr().err


def test_several_runs_are_refused_in_plain_words_where_one_is_evaluated(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    words = [str(tmp_path / "a"), "dtype=float64", str(tmp_path / "b")]
    with pytest.raises(UserError, match=" 2 .*/a, .*/b"):
        parse(evaluation_parser("likelihood", ""), words)
    assert parse(evaluation_parser("inference_gap", ""), words, several=True)[1].runs == [
        tmp_path / "a",
        tmp_path / "b",
    ]
    with pytest.raises(UserError, match="'c'"):
        parse(evaluation_parser("likelihood", ""), [words[0], "c"])


def test_a_request_has_the_arguments_that_figures_depend_on_and_the_command() -> None:
    parser = evaluation_parser("predictive_checks", "", ["mode"], writes=("json", "picture"))
    parser.add_argument("--particles", type=int, default=3)
    words = ["runs/a", "--device", "cpu", "--picture", "x.png", "--split", "valid", "seed=2"]
    request, _ = parse(parser, words)
    assert request.arguments == {"particles": 3, "overrides": ["seed=2"]}
    assert request.command == f"python -m evaluation.predictive_checks {' '.join(words)}"
    assert (request.picture, request.csv, request.without) == (Path("x.png"), None, ("mode",))
    assert "--csv" not in parser.format_help() and "--mode" not in parser.format_help()


def test_every_evaluation_launches_work_that_exists() -> None:
    found = {}
    for path in (Path(evaluation.__file__).parent).rglob("*.py"):
        for work in re.findall(r'launch\([^"]*"([a-z_.]+:[a-z_]+)"', path.read_text(encoding="utf-8")):
            module, _, function = work.partition(":")
            found[work] = callable(getattr(importlib.import_module(module), function))
    assert len(found) >= 14 and all(found.values())
