"""The command line that all evaluations share: ``python -m evaluation.X RUN [...] [key=value ...]``.

An evaluation adds its own arguments to `evaluation_parser`, and `launch` runs it inside `guarded`, which prints a
`UserError` as one message. This module imports neither torch nor numpy, so that ``--help`` is fast; `parse` and
`open_run` import what they need when they are called.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from corpora.recipes.layouts.table import split_of
from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = [
    "Request",
    "check_minimum",
    "check_samples",
    "evaluation_parser",
    "guarded",
    "launch",
    "open_run",
    "parse",
    "read_run",
    "say",
]


class Request(NamedTuple):
    """The arguments that all evaluations share.

    Attributes:
        run: the run folder.
        split: split of the corpus.
        mode: "gt" (the decoder is given the true past) or "gen" (its own output); None is the run's
            `evaluation.mode`.
        latents: "mean" or "sample"; None is the run's `evaluation.latents`.
        checkpoint: the checkpoint to read; None is best.pt, else last.pt.
        device: device to compute on.
        json: file that gets a copy of the report.
        overrides: settings changed for this evaluation, --corpus and --root among them.
    """

    run: Path
    split: str = "test"
    mode: str | None = None
    latents: str | None = None
    checkpoint: Path | None = None
    device: str = "cpu"
    json: Path | None = None
    overrides: tuple[str, ...] = ()


def evaluation_parser(name: str, description: str, without: Collection[str] = ()) -> argparse.ArgumentParser:
    """The arguments of every evaluation of one run; `parse` reads them.

    Args:
        name: the evaluation X of ``python -m evaluation.X``.
        description: one line for ``--help``.
        without: arguments that have no effect on it and are left out: "corpus", "root", "split", "mode", "latents".
    """
    parser = argparse.ArgumentParser(prog=f"python -m evaluation.{name}", description=description)
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
            "choices": ["train", "valid", "test"],
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
    for argument, what in of_data.items():
        if argument in without or (argument == "set" and "corpus" in without):
            parser.set_defaults(**{argument: None})
        else:
            parser.add_argument(f"--{argument}", **what)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: best.pt of the run, else last.pt")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write a copy of {name}.json here")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, such as dtype=float64")
    return parser


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, *, several: bool = False
) -> tuple[Request, argparse.Namespace]:
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

    options = parser.parse_intermixed_args(argv)
    if several:
        options.runs = [options.run, *(Path(item) for item in options.overrides if "=" not in item)]
        options.overrides = [item for item in options.overrides if "=" in item]
    for item in options.overrides:
        if "=" not in item:
            raise UserError(f"'{item}' is not a setting: expected key=value, such as dtype=float64, and one run.")
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
    request = Request(
        run=options.run,
        split=options.split or "test",
        mode=options.mode,
        latents=options.latents,
        checkpoint=options.checkpoint,
        device=options.device,
        json=options.json,
        overrides=tuple(overrides),
    )
    return request, options


def launch(parser: argparse.ArgumentParser, argv: Sequence[str] | None, work: str, *, several: bool = False) -> int:
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


def check_samples(request: Request, user: str) -> None:
    """Refuse ``--latents mean`` for what needs samples of the latents.

    Raises:
        UserError: the mean is asked for.
    """
    if request.latents == "mean":
        raise UserError(f"--latents mean: {user} need samples of the latents. Omit --latents.")


def open_run(request: Request) -> Run:
    """Load the run of a request, with the overrides of its settings."""
    from inference.runs import load_run  # imports torch

    return load_run(request.run, checkpoint=request.checkpoint, device=request.device, overrides=request.overrides)


def read_run(request: Request) -> Run:
    """`open_run`, and print which checkpoint is read."""
    run = open_run(request)
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    return run


def guarded(main: Callable[[], None]) -> int:
    """Run a command; a `UserError` is printed as ``error: <message>`` on stderr, without a traceback.

    Returns:
        The exit status: 0, 2 after a `UserError`, 130 after Ctrl-C.
    """
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # in terminals that cannot encode ±
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def say(text: str) -> None:
    """Print a remark on stderr; stdout contains only results."""
    print(text, file=sys.stderr)
