"""The arguments that `enhance`, `separate` and `inpaint` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvae_pyro.command_line import Parser
from evaluation.reporting.command_line import evaluation_parser

__all__ = ["restoration_parser"]

UNUSED = ("corpus", "root", "split", "mode", "latents")


def restoration_parser(
    name: str, description: str, source: str, *, clean: dict[str, Any], inference: dict[str, Any]
) -> Parser:
    """A parser with the shared arguments.

    Args:
        name: the evaluation.
        description: one line for ``--help``.
        source: the option of the recordings, such as ``"--noisy"``.
        clean: arguments of the option ``--clean``.
        inference: arguments of the option ``--inference``.
    """
    parser = evaluation_parser(name, description, without=UNUSED, writes=("json", "csv"))
    parser.add_argument(source, type=Path, required=True, metavar="PATH", help="a sound file, or a folder of them")
    parser.add_argument("--clean", type=Path, **clean)
    parser.add_argument("--inference", metavar="METHOD", **inference)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder for sounds and reports (default: RUN/{name})")
    parser.add_argument("--jobs", type=int, metavar="J", help="processes for metrics; default: all cores")
    return parser
