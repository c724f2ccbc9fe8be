"""The command line that all evaluations share: ``python -m evaluation.X RUN [...] [key=value ...]``.

An evaluation adds its own arguments to `evaluation_parser`, and `launch` runs it inside
`dvae_pyro.command_line.guarded`, which prints a `UserError` as one message. This module imports neither torch nor
numpy, so that ``--help`` is fast; `parse` and `open_run` import what they need when they are called.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from corpora.recipes.layouts.table import split_of
from dvae_pyro.command_line import DEVICE_HELP, Parser, guarded
from dvae_pyro.errors import UserError
from dvae_pyro.program_names import as_called

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = [
    "PICTURED",
    "SEGMENTS",
    "Request",
    "check_minimum",
    "evaluation_parser",
    "guarded",
    "launch",
    "open_run",
    "parse",
    "read_run",
    "say",
]


SEGMENTS = ("mode", "latents")
"""Arguments that have no effect on evaluations of features and of segments."""
PICTURED = ("json", "picture")
"""Files of an evaluation that draws a picture of its report."""


class Request(NamedTuple):
    """The arguments that all evaluations share.

    Attributes:
        run: the run folder.
        split: split of the corpus.
        mode: "gt" (the decoder is given the true past) or "gen" (its own output); None is the run's
            `evaluation.mode`.
        latents: "mean" or "sample"; None is the run's `evaluation.latents`.
        checkpoint: the checkpoint to read; None is best.pt, else last.pt.
        device: device to compute on; "auto" is CUDA where there is one.
        json: file that gets a copy of the report.
        overrides: settings changed for this evaluation, --corpus and --root among them.
        csv: file that gets a copy of its rows.
        picture: file that gets a copy of its picture.
        force: replace the report of another command.
        without: the arguments among "corpus", "split", "mode", "latents" that have no effect on this evaluation.
        arguments: all other arguments that its figures depend on, by name; None where no command line was parsed.
        command: the command line; empty where none was parsed.
    """

    run: Path
    split: str = "test"
    mode: str | None = None
    latents: str | None = None
    checkpoint: Path | None = None
    device: str = "auto"
    json: Path | None = None
    overrides: tuple[str, ...] = ()
    csv: Path | None = None
    picture: Path | None = None
    force: bool = False
    without: tuple[str, ...] = ()
    arguments: dict[str, Any] | None = None
    command: str = ""


def evaluation_parser(
    name: str,
    description: str,
    without: Collection[str] = (),
    writes: Collection[str] = ("json",),
    *,
    samples: bool = False,
    splits: Sequence[str] = ("train", "valid", "test"),
) -> Parser:
    """The arguments of every evaluation of one run; `parse` reads them.

    Args:
        name: the evaluation X of ``python -m evaluation.X``.
        description: one line for ``--help``.
        without: arguments that have no effect on it and are left out: "corpus", "root", "split", "mode", "latents",
            "force".
        writes: the files of its report, "json", "csv" and "picture"; copies of them are options.
        samples: it needs samples of the latents: ``--latents mean`` is refused.
        splits: the splits that it can evaluate.
    """
    parser = Parser(f"evaluation.{name}", description)
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="run folder, as written by inference.svi or models.published"
    )
    of_data: dict[str, dict[str, Any]] = {
        "corpus": {"metavar": "C", "help": "corpus to evaluate on (default: the run's)"},
        "root": {
            "metavar": "DIR",
            "help": "folder of that corpus (default: the run's, unless --corpus names another)",
        },
        "set": {"metavar": "NAME", "help": "subset of the corpus (data.subset)"},
        "split": {
            "type": split_of,
            "choices": splits,
            "default": "test",
            "help": "default: %(default)s; dev and val are valid",
        },
        "mode": {
            "choices": ["gt", "gen"],
            "help": "the decoder is given the true past (gt) or its own output (gen); default: evaluation.mode",
        },
        "latents": {
            "choices": ["mean", "sample"],
            "help": "decode the mean of the posterior or a sample of it; default: evaluation.latents",
        },
    }
    if samples:
        of_data["latents"] = {"choices": ["sample"], "help": argparse.SUPPRESS}
    for argument, what in of_data.items():
        if argument in without or (argument == "set" and "corpus" in without):
            parser.set_defaults(**{argument: None})
        else:
            parser.add_argument(f"--{argument}", **what)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: best.pt of the run, else last.pt")
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    for kind, what_file in (("json", "report"), ("csv", "table with a row per utterance"), ("picture", "picture")):
        if kind in writes:
            parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write a copy of the {what_file} here")
    if "force" not in without:
        parser.add_argument("--force", action="store_true", help="replace the report of another command")
    parser.set_defaults(without=(*without, *(["latents"] if samples else [])))
    parser.add_settings("overrides", example="dtype=float64")
    return parser


def parse(parser: Parser, argv: Sequence[str] | None, *, several: bool = False) -> tuple[Request, argparse.Namespace]:
    """Parse the command line.

    Args:
        parser: from `evaluation_parser`.
        argv: the arguments; None reads those of the process.
        several: accept further run folders.

    Returns:
        The shared arguments, and the namespace with all arguments; with `several`, its ``runs`` are all run folders.

    Raises:
        UserError: an argument is neither an option nor ``key=value``.
    """
    from inference.settings.overrides import quoted  # imports OmegaConf

    words = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse(words)
    others = [item for item in options.overrides if "=" not in item]
    if several:
        options.runs = [options.run, *map(Path, others)]
        options.overrides = [item for item in options.overrides if "=" in item]
    elif others:
        raise UserError(_not_a_setting(parser, options.run, others))
    overrides: list[str] = []
    if options.corpus is not None:  # root, subset and layout of the run's corpus do not apply to another corpus
        overrides.append(f"data.corpus={quoted(options.corpus)}")
        overrides += [
            f"data.{key}=null"
            for key in ("root", "subset", "layout", "speaker_level", "channel", "cuts.train", "cuts.valid", "cuts.test")
        ]
    overrides += options.overrides
    if options.root is not None:
        overrides.append(f"data.root={quoted(options.root)}")
    if options.set is not None:
        overrides.append(f"data.subset={quoted(options.set)}")
    shared = {name: getattr(options, name, None) for name in ("json", "csv", "picture")}
    request = Request(
        run=options.run,
        split=options.split or "test",
        mode=options.mode,
        latents=options.latents,
        checkpoint=options.checkpoint,
        device=options.device,
        overrides=tuple(overrides),
        force=bool(getattr(options, "force", False)),
        without=tuple(options.without),
        arguments={name: _plain(value) for name, value in vars(options).items() if name not in _NO_ARGUMENTS},
        command=f"python -m {parser.module} {shlex.join(map(str, words))}",
        **shared,
    )
    return request, options


_NO_ARGUMENTS = (
    *("run", "corpus", "root", "set", "split", "mode", "latents", "checkpoint"),  # reports have them by other keys
    *("device", "json", "csv", "picture", "force", "without", "jobs", "audio"),  # figures do not depend on them
)


def _plain(value: Any) -> Any:
    """An argument as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _not_a_setting(parser: Parser, run: Path, others: Sequence[str]) -> str:
    """The message for positional arguments that are neither the run nor settings."""
    if any(Path(item).is_dir() for item in others):
        each = f"for run in {shlex.join([str(run), *others])}; do {parser.prog} $run; done"
        return (
            f"{parser.prog} evaluates one run, and {1 + len(others)} are given: {run}, {', '.join(others)}.\n"
            f"Evaluate each by itself: {each}"
        )
    return f"'{others[0]}' is not a setting: expected key=value, such as dtype=float64, and one run."


def launch(parser: Parser, argv: Sequence[str] | None, work: str, *, several: bool = False) -> int:
    """Run an evaluation: parse the command line, then import its work and call it; returns the exit status.

    Args:
        parser: from `evaluation_parser`.
        argv: the arguments; None reads those of the process.
        work: ``"module:function"``, called with the shared arguments and the namespace of all. It is imported only
            after the arguments are parsed, so that ``--help`` is fast.
        several: accept further run folders.
    """

    def command() -> None:
        request, options = parse(parser, argv, several=several)
        module, _, function = work.partition(":")
        getattr(import_module(module), function)(request, options)

    return guarded(command)


def check_minimum(options: argparse.Namespace, **minimum: int) -> None:
    """Check that numbers, or lists of numbers, are at least the given ones; None is accepted.

    Raises:
        UserError: one is smaller.

    Example:
        >>> check_minimum(argparse.Namespace(num=3, seconds=None), num=2, seconds=1)
    """
    for name, least in minimum.items():
        values = getattr(options, name, None)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} {value}: expected {least} or more.")


def open_run(request: Request) -> Run:
    """Load the run of a request, with the overrides of its settings."""
    from inference.runs import load_run  # imports torch

    return load_run(request.run, checkpoint=request.checkpoint, device=request.device, overrides=request.overrides)


def read_run(request: Request) -> Run:
    """`open_run`, and print which checkpoint is read, and to which device."""
    from inference.runs import device_text

    run = open_run(request)
    say(f"reading {run.checkpoint_path}, step {run.state['step']}; device {device_text(run.settings.device)}")
    return run


def say(text: str) -> None:
    """Print a remark on stderr; stdout contains only results."""
    print(as_called(text), file=sys.stderr)
