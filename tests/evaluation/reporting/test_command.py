"""The command line that evaluations share: names of splits and sets."""

from __future__ import annotations

import importlib
import re
from argparse import Namespace
from pathlib import Path

import pytest

import evaluation
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, check_minimum, check_samples, evaluation_parser, parse


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


def test_the_mean_of_latents_is_refused_where_samples_are_needed() -> None:
    check_samples(Request(Path("runs/a"), latents="sample"), "bounds")
    with pytest.raises(UserError, match="--latents mean.*bounds"):
        check_samples(Request(Path("runs/a"), latents="mean"), "bounds")


def test_every_evaluation_launches_work_that_exists() -> None:
    found = {}
    for path in (Path(evaluation.__file__).parent).rglob("*.py"):
        for work in re.findall(r'launch\([^"]*"([a-z_.]+:[a-z_]+)"', path.read_text(encoding="utf-8")):
            module, _, function = work.partition(":")
            found[work] = callable(getattr(importlib.import_module(module), function))
    assert len(found) >= 14 and all(found.values())
