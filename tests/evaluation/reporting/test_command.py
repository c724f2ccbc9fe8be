"""The command line that evaluations share: names of splits and sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.reporting.command_line import evaluation_parser, parse


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
