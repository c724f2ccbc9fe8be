"""The command line that all evaluations share: ``python -m evaluation.X RUN [...] [key=value ...]``.

An evaluation adds its own arguments to `evaluation_parser`, and runs inside `guarded`, which turns a user's
mistake into one message. Nothing heavy is imported before the arguments are known.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from corpora.recipes.layouts.table import split_of
from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = ["Request", "evaluation_parser", "guarded", "open_run", "parse", "say"]


class Request(NamedTuple):
    """What to evaluate.

    Attributes:
        run: the run folder.
        split: which part of the corpus.
        mode: "gt" (the decoder is fed the true past) or "gen" (its own output); None is the run's
            `evaluation.mode`.
        latents: "mean" or "sample"; None is the run's `evaluation.latents`.
        checkpoint: the checkpoint to read; None is best.pt, else last.pt.
        device: where to compute.
        json: where a second copy of the report goes.
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
        description: what it does, in one line.
        without: arguments that would have no effect on it: "corpus", "root", "split", "mode", "latents".
    """
    parser = argparse.ArgumentParser(prog=f"python -m evaluation.{name}", description=description)
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="run folder, as inference.svi or models.published leaves it"
    )
    of_data: dict[str, dict[str, Any]] = {
        "corpus": {"metavar": "C", "help": "corpus to evaluate on (default: the run's)"},
        "root": {
            "metavar": "DIR",
            "help": "folder of that corpus (default: the run's, unless --corpus names another)",
        },
        "set": {"metavar": "NAME", "help": "set of a corpus that comes in several (data.subset)"},
        "split": {
            "type": split_of,
            "choices": ["train", "valid", "test"],
            "default": "test",
            "help": "default: %(default)s; dev and val are valid",
        },
        "mode": {
            "choices": ["gt", "gen"],
            "help": "the decoder sees the true past (gt) or its own output (gen); default: evaluation.mode",
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
    """Read the command line: what all evaluations share, and everything, for arguments of your own.

    With `several`, further run folders are taken, and all of them are in ``runs``.
    """
    from inference.settings.overrides import quoted

    given = parser.parse_intermixed_args(argv)
    if several:
        given.runs = [given.run, *(Path(item) for item in given.overrides if "=" not in item)]
        given.overrides = [item for item in given.overrides if "=" in item]
    for item in given.overrides:
        if "=" not in item:
            raise UserError(f"'{item}' is no setting: expected key=value, such as dtype=float64. One run is evaluated.")
    overrides: list[str] = []
    if given.corpus is not None:  # another corpus does not lie where the run's does, nor come in its sets
        overrides.append(f"data.corpus={quoted(given.corpus)}")
        overrides += [f"data.{key}=null" for key in ("root", "subset", "layout", "speaker_level", "channel")]
    overrides += given.overrides
    if given.root is not None:
        overrides.append(f"data.root={quoted(given.root)}")
    if given.set is not None:
        overrides.append(f"data.subset={quoted(given.set)}")
    request = Request(
        run=given.run,
        split=given.split or "test",
        mode=given.mode,
        latents=given.latents,
        checkpoint=given.checkpoint,
        device=given.device,
        json=given.json,
        overrides=tuple(overrides),
    )
    return request, given


def open_run(request: Request) -> Run:
    """Load the run that is asked for, with its settings changed as asked for."""
    from inference.runs import load_run

    return load_run(request.run, checkpoint=request.checkpoint, device=request.device, overrides=request.overrides)


def guarded(main: Callable[[], None]) -> int:
    """Run a command; a user's mistake becomes ``error: <message>`` on stderr.

    Returns:
        The exit status: 0, 2 after a user's mistake, 130 after Ctrl-C.
    """
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± and arrows still gets its table
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
    """A remark beside the results: to stderr, so that stdout holds the table alone."""
    print(text, file=sys.stderr)
