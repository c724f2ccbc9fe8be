"""What benchmarks share: arguments, and where the figures go."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    from inference.settings.tree import Settings

__all__ = ["add_common", "computed", "keep"]


def add_common(parser: argparse.ArgumentParser, runs: str | None = "interleaved runs, the best counts") -> None:
    """Size of a frame, repetitions, machine, where the figures go, and settings.

    Args:
        parser: gets them.
        runs: what ``--runs`` counts; None for a benchmark without.
    """
    parser.add_argument("--bins", type=int, default=257, metavar="F", help="per frame (%(default)s)")
    if runs is not None:
        parser.add_argument("--runs", type=int, default=3, help=f"{runs} (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: what torch takes)")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, such as model.z_dim=32")


def keep(path: Path | None, report: Any) -> None:
    """Write the figures as JSON, where ``--json`` names a file.

    Raises:
        UserError: if it cannot be written.
    """
    if path is not None:
        from evaluation.reporting.report import write_json

        write_json(path, report)


def computed(settings: Settings) -> Settings:
    """The settings of steps that are computed, not recorded.

    Raises:
        UserError: for `train.cuda_graph`, which would have no effect.
    """
    if settings.train.cuda_graph:
        raise UserError(
            "train.cuda_graph=true: this benchmark computes its steps. benchmarks.gpu_suite times recorded ones."
        )
    return settings
