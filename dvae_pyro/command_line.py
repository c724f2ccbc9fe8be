"""What all command lines share: the parser, and how a command ends.

This module imports neither torch nor numpy, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.errors import UserError, nearest
from dvae_pyro.program_names import as_called, program

__all__ = [
    "DEVICE_HELP",
    "Parser",
    "guarded",
    "nearest_path",
    "refuse_shadowed",
    "separated",
]

RENAMED = {
    "--a": "--source",
    "--audio": "--out",
    "--b": "--reference",
    "--batch": "--chunk",
    "--dim": "--ivector-dim",
    "--draws": "--particles",
    "--iterations": "--phase-iterations or --em-iterations",
    "--num": "--sequences",
    "--runs": "--repeats",
    "--steps": "--refinement-steps",
}
"""Options that had another name before all commands agreed; each is refused with its present name."""
PACKAGES = ("models", "guides", "inference", "evaluation", "corpora", "configs")
DEVICE_HELP = "auto (default: cuda where there is one, else cpu), cpu, cuda, cuda:N"
BROKEN_PIPE = 141
"""Exit status after the reader of the output has gone, as a shell reports SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """A parser whose options have no abbreviations, whose usage shows what is required, and that suggests names.

    Options with several values (``nargs="+"`` or ``"*"``) end at the first word ``key=value``, which is a setting, and
    at the first run folder, which is a positional argument.

    Args:
        module: The module that ``python -m`` runs.
        description: One line for ``--help``.
        epilog: Text after the options.
    """

    def __init__(self, module: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=program(module), description=description, epilog=epilog, allow_abbrev=False)
        self.module = module
        self._settings = ""

    def add_settings(self, dest: str = "settings", metavar: str = "key=value", example: str = "optim.lr=1e-4") -> None:
        """Add the settings that follow, as positional arguments ``key=value``."""
        self.add_argument(dest, nargs="*", default=[], metavar=metavar, help=f"settings, such as {example}")
        self._settings = dest

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse a command line, in which options and positional arguments may be mixed.

        Raises:
            SystemExit: After ``--help`` (0), or for a wrong command line (2), with a message.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        self._refuse_unknown(words)
        words, settings = self._lists_ended(words)
        options = self.parse_intermixed_args(words)
        if settings:
            setattr(options, self._settings, [*getattr(options, self._settings), *settings])
        return options

    def run(self, argv: Sequence[str] | None, work: str) -> int:
        """Parse a command line, then import the work and call it with the arguments; returns the exit status.

        Args:
            argv: The arguments; None reads those of the process.
            work: ``"module:function"``, imported after the arguments are parsed, so that ``--help`` is fast.
        """

        def command() -> None:
            options = self.parse(argv)
            module, _, function = work.partition(":")
            getattr(import_module(module), function)(options)

        return guarded(command)

    def _lists_ended(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words without the settings that follow a list of values, and these settings.

        Run folders that follow a list are moved to before its option.
        """
        lists = {name for action in self._actions if action.nargs in ("+", "*") for name in action.option_strings}
        kept: list[str] = []
        settings: list[str] = []
        before: int | None = None
        for word in words:
            if word.startswith("--"):
                before = len(kept) if word in lists else None
            if before is not None and self._settings and _is_setting(word):
                settings.append(word)
            elif before is not None and (Path(word) / "config.yaml").is_file():
                kept.insert(before, word)
                before += 1
            else:
                kept.append(word)
        return kept, settings

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """Name an unknown option, and the one that was meant, before anything is said of arguments that are missing."""
        known = self._option_string_actions
        offered = [name for name, action in known.items() if action.help != argparse.SUPPRESS]
        for word in words:
            option = word.partition("=")[0]
            if word == "--":
                return
            if option.startswith("--") and option not in known:
                present = [name for name in RENAMED.get(option, "").split(" or ") if name in known]
                self.error(
                    f"unknown option {option}."
                    + (f" It is called {present[0]}." if present else _nearest_option(option, offered))
                )

    def format_usage(self) -> str:
        """What is required, and the word [options] for the rest."""
        self._set_usage()
        return super().format_usage()

    def format_help(self) -> str:
        """The whole help."""
        self._set_usage()
        return super().format_help()

    def _set_usage(self) -> None:
        if self.usage is not None:
            return
        required = [
            f"{action.option_strings[0]} {action.metavar or _choices(action)}"
            for action in self._actions
            if action.option_strings and action.required
        ]
        positional: list[str] = []
        settings: list[str] = []
        for action in self._get_positional_actions():
            metavar = str(action.metavar or action.dest)
            several = {"+": f"{metavar} [{metavar} ...]", "*": f"[{metavar} ...]"}
            (settings if action.nargs == "*" else positional).append(several.get(str(action.nargs), metavar))
        words = [self.prog, *positional, *required, "[options]", *settings]
        self.usage = " ".join(words).replace("%", "%%")


def _nearest_option(option: str, offered: Iterable[str]) -> str:
    """As `nearest`, of the words after the dashes, which all options have in common."""
    words = [name.removeprefix("--") for name in offered if name.startswith("--")]
    return nearest(option.removeprefix("--"), words).replace("'", "'--", 1)


def _choices(action: argparse.Action) -> str:
    return "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()


def _is_setting(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.replace("_", "").replace(".", "").isalnum()


def separated(text: str) -> list[str]:
    """The words of a list with commas, the type of options such as ``--factors A,B``.

    Example:
        >>> separated("speaker,phone")
        ['speaker', 'phone']
    """
    return [word for word in text.split(",") if word]


def nearest_path(path: Path) -> str:
    """Suggest an existing folder or file beside a missing path; an empty string where none is like it."""
    with contextlib.suppress(OSError):
        hint = nearest(path.name, (item.name for item in path.absolute().parent.iterdir()))
        return hint.replace("'", f"'{path.parent}/" if path.parent != Path() else "'", 1)
    return ""


def refuse_shadowed(packages: Iterable[str] = PACKAGES) -> None:
    """Refuse to run where a folder of the user's is found in place of a package of this library.

    Raises:
        UserError: With the folder, and the ways to run in spite of it.
    """
    home = Path(__file__).resolve().parents[1]
    for name in packages:
        module = sys.modules.get(name)
        spec = PathFinder.find_spec(name) if module is None else module.__spec__
        places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or ""])
        found = [Path(place).resolve() for place in places if place]
        if found and all(home not in place.parents for place in found):
            raise UserError(
                f"{found[0]} takes the place of this library's package '{name}', which is in {home}: Python finds the "
                "present folder first.\nRun the console scripts (dvae-train, dvae-eval, ...), which do not search it, "
                "run from another folder, or rename yours."
            )


def guarded(main: Callable[[], object], stopped: str = "stopped; nothing was written") -> int:
    """Run a command, and say how it ends.

    A `UserError` is printed as ``error: <message>`` on stderr, without a traceback. Where the reader of the output has
    gone (``| head``), the command ends without a message.

    Args:
        main: The command.
        stopped: Message after Ctrl-C, unless the command's own has one.

    Returns:
        The exit status: 0, 2 after a `UserError`, 130 after Ctrl-C, 141 without a reader.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # in terminals that cannot encode ±, for file names of any bytes
    try:
        try:
            refuse_shadowed()
            keep_freed_memory()
            main()
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {as_called(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\n{as_called(str(interrupt)) or stopped}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_gone():
            raise
        return BROKEN_PIPE
    return 0


def _reader_gone() -> bool:
    """Whether the reader of stdout or stderr has gone; what is still to be written there is then dropped."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(file=stream, flush=True)  # a reader that is there gets an empty line before the traceback
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
            return True
    return False
