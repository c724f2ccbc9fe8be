"""Options of all commands: one name for one meaning."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

import pytest

from docs.generator.commands import commands
from dvae_pyro.command_line import RENAMED, Parser

BENCHMARKS = (
    "generation",
    "gradient_noise",
    "growth",
    "particles",
    "preparation",
    "streaming",
    "train_step",
    "trainings",
)
SEVERAL = {
    "--clean": "separate takes a folder for each source",
    "--inference": "enhance compares several methods",
    "--split": "shard writes several",
    "--frames": "generation and growth measure several lengths",
    "--sequences": "growth measures several sizes",
    "--particles": "growth and gradient_noise measure several numbers",
    "--hours": "streaming measures several lengths",
    "--utterance": "traverse takes several",
}
"""Options that some command takes several values of."""


def parser_of(module: str) -> Parser:
    """The parser of a command, as it is when it would read the arguments."""

    class Read(Exception):
        pass

    def parse(self: Parser, argv: object = None) -> argparse.Namespace:
        raise Read(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse", parse)
        with pytest.raises(Read) as read:
            importlib.import_module(module).main(["runs/a"])
    parser: Parser = read.value.args[0]
    return parser


@pytest.fixture(scope="module")
def options() -> dict[str, list[tuple[str, argparse.Action]]]:
    """Every option by its name: the commands that have it, and how."""
    modules = {**commands(), **{f"benchmarks.{name}": f"benchmarks.{name}" for name in BENCHMARKS}}
    found: dict[str, list[tuple[str, argparse.Action]]] = {}
    for command, module in modules.items():
        for action in parser_of(module)._actions:
            for name in action.option_strings:
                found.setdefault(name, []).append((command, action))
    return found


def kinds(uses: list[tuple[str, argparse.Action]], *, several: bool) -> Iterator[tuple[object, ...]]:
    for _, action in uses:
        shape = () if several else (action.nargs, type(action))
        kind = getattr(action.type, "__name__", None)
        yield (*shape, "text" if kind in (None, "Path", "split_of") else kind)


def test_an_option_takes_the_same_in_all_commands(options: dict[str, list[tuple[str, argparse.Action]]]) -> None:
    for name, uses in options.items():
        found = set(kinds(uses, several=name in SEVERAL)) - {("_numbers",)}
        assert len(found) == 1, f"{name}: {[(command, action.type) for command, action in uses]}"


def test_an_option_has_one_placeholder_for_one_meaning(options: dict[str, list[tuple[str, argparse.Action]]]) -> None:
    """A second placeholder is a second meaning, unless it says what kind of place it is, or is that of a list."""
    places, lists = {"DIR", "FILE", "PATH", "C.wav"}, {"n", "K,..."}
    for name, uses in options.items():
        found = {str(action.metavar) for _, action in uses if action.metavar is not None} - lists
        assert len(found) <= 1 or found <= places, f"{name}: {found}"


def test_names_that_were_given_up_are_not_offered(options: dict[str, list[tuple[str, argparse.Action]]]) -> None:
    kept = {
        "--audio": {"evaluation.resynthesis", "evaluation.enhance"},
        "--batch": {"evaluation.recognition"},
        "--dim": {"evaluation.traverse"},
        "--runs": {"benchmarks.trainings"},
    }
    for name in {*RENAMED} - {"--steps"}:  # steps are those of a training, in benchmarks and in recognition
        assert {command for command, _ in options.get(name, [])} == kept.get(name, set())
