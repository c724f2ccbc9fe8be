"""Command-line arguments that benchmarks share, and what is done with them before anything is timed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dvae_pyro.command_line import DEVICE_HELP, Parser
from dvae_pyro.errors import UserError
from evaluation.reporting.report import write_json
from inference.settings.resolve import resolve
from inference.settings.tree import Settings

__all__ = ["add_common", "add_model", "keep", "settings_of", "without_graph"]


RUNS = "interleaved runs, of which the fastest counts"


def add_model(parser: Parser, default: str | None = None, *, guide: bool = True) -> None:
    """Add ``--model``, required unless there is a default, and ``--guide``."""
    text = "the generative model" + ("" if default is None else " (%(default)s)")
    parser.add_argument("--model", default=default, required=default is None, metavar="M", help=text)
    if guide:
        parser.add_argument("--guide", metavar="G", help="the inference model (default: that of the paper)")


def add_common(parser: Parser, runs: str | None = RUNS) -> None:
    """Add bins, repetitions, device, output file and settings.

    Args:
        parser: gets the arguments.
        runs: what ``--repeats`` counts; None for a benchmark without it.
    """
    parser.add_argument("--bins", type=int, default=257, metavar="F", help="values per frame (%(default)s)")
    if runs is not None:
        parser.add_argument("--repeats", type=int, default=3, help=f"{runs} (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: that of PyTorch)")
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")
    parser.add_settings(example="model.z_dim=32")


def settings_of(args: argparse.Namespace, guide: str | None = None, fixed: Sequence[str] = ()) -> Settings:
    """The settings of a benchmark of ``args.model``, after the number of CPU threads is set.

    Args:
        args: with the arguments of `add_common`.
        guide: name of the guide.
        fixed: settings that the command line may override.

    Raises:
        UserError: ``--bins`` contradicts ``model.bins``.
    """
    overrides = [f"model.bins={args.bins}", f"device={args.device}", *fixed, *args.settings]
    settings = resolve(args.model, guide, None, overrides)
    if settings.model.bins != args.bins:
        raise UserError(f"--bins {args.bins} contradicts model.bins={settings.model.bins}. Give one of them.")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return settings


def keep(path: Path | None, report: Any) -> None:
    """Write the report as JSON, where ``--json`` names a file."""
    if path is not None:
        write_json(path, report)


def without_graph(settings: Settings) -> Settings:
    """The settings of a benchmark whose steps run eagerly.

    Raises:
        UserError: ``train.cuda_graph`` is set, which would have no effect.
    """
    if settings.train.cuda_graph:
        raise UserError(
            "train.cuda_graph=true has no effect: this benchmark runs its steps eagerly. benchmarks.gpu_suite times "
            "CUDA graphs."
        )
    return settings
