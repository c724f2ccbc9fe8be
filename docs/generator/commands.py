"""reference/commands.md: the help of every command, as argparse prints it."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from unittest import mock

from dvae_pyro.commands import commands_of
from dvae_pyro.program_names import SCRIPTS

__all__ = ["commands", "help_of", "page"]

FIRST = {
    "inference.svi": "inference.svi",
    "models.describe": "inference.describe",
    "models.published": "inference.published",
    "corpora.fetch": "corpora.fetch.__main__",
    "corpora.shard": "corpora.shard",
    "corpora.recipes.synthetic.corpus": "corpora.recipes.synthetic.corpus",
}
"""Commands outside evaluation, each with the module that holds its ``main``."""


def commands() -> dict[str, str]:
    """Every module of ours that ``python -m`` runs, without benchmarks, with the module that holds its ``main``."""
    return FIRST | {f"evaluation.{name}": command.module for name, command in commands_of("evaluation").items()}


def script(command: str) -> str:
    """The console script of a command."""
    return SCRIPTS.get(command, f"{SCRIPTS['evaluation']} {command.removeprefix('evaluation.')}")


def help_of(module: str) -> str:
    """What the ``main`` of a module prints for ``--help``, 100 columns wide."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}), contextlib.redirect_stdout(out):
        with contextlib.suppress(SystemExit):
            importlib.import_module(module).main(["--help"])
    return out.getvalue().rstrip()


def page() -> str:
    """The page in Markdown."""
    parts = [_HEAD]
    for command, module in commands().items():
        parts.append(f"## `{command}`\n\nConsole script: `{script(command)}`\n\n```text\n{help_of(module)}\n```\n")
    return "\n".join(parts)


_HEAD = """# Commands

This page is written from the argument parsers when the site is built. Settings that a command takes as `key=value` are
those of [the settings page](settings.md). `python -m evaluation` and `python -m inference` list their commands.

Each command is `python -m MODULE` and a console script. `python -m` looks for packages in the present folder first:
beside a folder of your own that is called `models`, `inference` or the like, use the scripts. Every evaluation reads a
run folder and leaves its report there ([run folder and reports](run_folder.md)). Exit status: 0 on success, 2 for
invalid input, 130 after Ctrl-C, 141 where nobody reads the output any more (`| head`).
"""
