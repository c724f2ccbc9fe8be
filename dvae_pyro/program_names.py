"""How commands are called: ``python -m module`` or a console script, in messages and in processes of their own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

__all__ = ["SCRIPTS", "as_called", "own_process", "program"]

SCRIPTS = {
    "inference.svi": "dvae-train",
    "models.describe": "dvae-describe",
    "models.published": "dvae-published",
    "corpora.fetch": "dvae-fetch",
    "corpora.shard": "dvae-shard",
    "corpora.recipes.synthetic.corpus": "dvae-synthetic",
    "evaluation": "dvae-eval",
}
"""Console scripts by the module that ``python -m`` runs; those of evaluations are ``dvae-eval NAME``."""


def program(module: str) -> str:
    """How the user calls a command: ``python -m module``, or the console script where one of ours was started.

    Example:
        >>> program("evaluation.likelihood")
        'python -m evaluation.likelihood'
    """
    started = Path(sys.argv[0]).name.removesuffix(".exe") if sys.argv else ""
    if not started.startswith("dvae-"):
        return f"python -m {module}"
    return SCRIPTS.get(module, f"dvae-eval {module.removeprefix('evaluation.')}")


def own_process(module: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run one of our modules in a process of its own.

    The process does not search the present folder for packages, where a user's own ``models/`` may be.
    """
    home = str(Path(__file__).resolve().parents[1])
    places = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return [sys.executable, "-P", "-m", module], {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def as_called(text: str) -> str:
    """A message with commands as the user calls them (`program`), where it has ``python -m module``."""
    return re.sub(r"python -m ((?:inference|evaluation|models|corpora)[\w.]*\w)", lambda found: program(found[1]), text)
