"""The commands of a package: ``python -m evaluation`` lists them, ``python -m evaluation NAME ...`` runs one."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dvae_pyro.command_line import guarded
from dvae_pyro.errors import UserError, nearest
from dvae_pyro.program_names import program

__all__ = ["Command", "commands_of", "run_package"]


class Command(NamedTuple):
    """A command of a package.

    Attributes:
        module: The module that holds its ``main``.
        summary: What it does, the first words of the module's docstring.
    """

    module: str
    summary: str


def commands_of(package: str) -> dict[str, Command]:
    """The commands of a package by name: its modules, and the ``__main__`` of its packages, that define ``main``.

    Modules are read and not imported, so that the list of commands does not wait for torch.

    Example:
        >>> commands_of("inference")["svi"].summary
        'Train a model by stochastic variational inference, or resume a run'
    """
    found = {}
    for item in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = f"{package}.{item.name}" + (".__main__" if item.ispkg else "")
        spec = importlib.util.find_spec(module) if item.name != "__main__" else None
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            text = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[item.name] = Command(module, text.partition(": ``")[0].rstrip("."))
    return found


def run_package(package: str, argv: Sequence[str] | None = None) -> int:
    """Run ``NAME ...`` of a package, or print its commands, one line each; returns the exit status.

    Args:
        package: The package.
        argv: The arguments; None reads those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    commands = commands_of(package)
    if words and words[0] in commands:
        status: int = importlib.import_module(commands[words[0]].module).main(words[1:])
        return status

    def listing() -> None:
        if words and words[0] not in ("-h", "--help"):
            raise UserError(f"unknown command '{words[0]}'.{nearest(words[0], commands)} Known: {', '.join(commands)}.")
        width = max(map(len, commands))
        print(f"usage: {program(package)} NAME ...\n")
        for name, command in commands.items():
            print(f"  {name:<{width}}  {command.summary}")
        print("\nNAME --help shows the options of a command.")

    return guarded(listing)
