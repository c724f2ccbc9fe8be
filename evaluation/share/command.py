"""The work of `evaluation.share`: check, write weights, settings and card."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from corpora.settings import CutsSettings
from dvae_pyro.errors import UserError
from dvae_pyro.files import write_atomically
from evaluation.report.collect import collect
from evaluation.reporting.command_line import say
from evaluation.share.card import card
from inference.checkpoints.shared import SHARED, save_shared
from inference.runs import load_run
from inference.settings.resolve import save_settings
from inference.settings.tree import Settings

__all__ = ["run_share", "without_paths"]


def run_share(options: argparse.Namespace) -> None:
    """Write a run as a folder that can be shared.

    Raises:
        UserError: the output folder is not empty, the run cannot be loaded, or safetensors is not installed.
    """
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not an empty folder. Give another --out: nothing is replaced.")
    run = load_run(options.run, checkpoint=options.checkpoint, device="cpu")
    (folder,) = collect([run.path])
    text = card(run, folder.reports, out.name, options.licence)
    save_shared(out / SHARED, run.state)
    save_settings(without_paths(run.settings), out / "config.yaml")
    write_atomically(out / "README.md", text.encode())
    size = f"{(out / SHARED).stat().st_size / 2**20:.1f} MiB"
    weights = f"{run.checkpoint_path.name} at step {run.state['step']}"
    print(f"{out}: {SHARED} ({size}, {weights}), config.yaml, README.md")
    if not any(report.content.get("metrics") for report in folder.reports):
        say(
            f"the card has no figures: {run.path} has no reports. Run evaluations first, such as evaluation.likelihood."
        )
    say(f"read README.md and add what it cannot know; then for example: hf upload USER/{out.name} {out}")


def without_paths(settings: Settings) -> Settings:
    """Settings without what is particular to a machine: paths, and the device."""
    data = replace(settings.data, root=None, cache=None, cuts=CutsSettings())
    return replace(settings, run=None, device="auto", data=data, train=replace(settings.train, model_from=None))
