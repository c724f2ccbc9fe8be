"""reference/commands.md: the help of every command, as argparse prints it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import pkgutil
from unittest import mock

__all__ = ["commands", "help_of", "page"]

FIRST = {
    "inference.svi": "inference.svi",
    "models.describe": "inference.describe",
    "models.published": "inference.published",
    "corpora.fetch": "corpora.fetch.__main__",
    "corpora.shard": "corpora.shard",
}
"""Commands outside evaluation, each with the module that holds its ``main``."""


def commands() -> dict[str, str]:
    """Every module of ours that ``python -m`` runs, without benchmarks, with the module that holds its ``main``."""
    import evaluation

    found = dict(FIRST)
    for module in pkgutil.iter_modules(evaluation.__path__, "evaluation."):
        path = f"{module.name}.__main__" if module.ispkg else module.name
        if importlib.util.find_spec(path) is not None and hasattr(importlib.import_module(path), "main"):
            found[module.name] = path
    return found


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
        parts.append(f"## `{command}`\n\n```text\n{help_of(module)}\n```\n")
    return "\n".join(parts)


_HEAD = """# Commands

This page is written from the argument parsers when the site is built. Settings that a command takes as `key=value` are
those of [the settings page](settings.md). Every evaluation reads a run folder and leaves its report there
([run folder and reports](run_folder.md)). Exit status: 0 on success, 2 for invalid input, 130 after Ctrl-C.
"""
