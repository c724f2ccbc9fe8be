"""No command waits for what its help does not need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"arviz", "librosa", "matplotlib", "numpy", "pesq", "pyro", "pystoi", "scipy", "sklearn", "soundfile", "torch"}
"""Together ten times the two seconds of CPU that a command's help may take."""

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in ("inference", "evaluation", "models")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r'^if __name__ == "__main__":', path.read_text(encoding="utf-8"), flags=re.MULTILINE)
)
HELP = """
import contextlib, io, json, runpy, sys

loaded = {}
for name in sys.argv[1:]:
    sys.argv[:] = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        runpy.run_module(name, run_name="__main__")
    loaded[name] = ["usage" in said.getvalue(), sorted({module.partition(".")[0] for module in sys.modules})]
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[bool, list[str]]]:
    """By command, whether it printed its usage, and the packages that were imported when it, or one before it, had."""
    found = subprocess.run(
        [sys.executable, "-c", HELP, *COMMANDS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name: (said, packages) for name, (said, packages) in json.loads(found.stdout).items()}


def test_commands_are_found() -> None:
    assert {"inference.svi", "evaluation.likelihood", "models.describe"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str, loaded: dict[str, tuple[bool, list[str]]]) -> None:
    said, packages = loaded[command]
    assert said and not HEAVY & set(packages)
