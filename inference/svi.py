"""Train a model by stochastic variational inference, or resume a run.

python -m inference.svi --model dkf
python -m inference.svi --model dkf --corpus folder --root data/librispeech-mini --run runs/dkf
python -m inference.svi --resume runs/dkf train.steps=1200
torchrun --nproc-per-node 2 -m inference.svi --model dkf
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.errors import ProcessLost, UserError

__all__ = ["main"]

PAUSE = 5.0
"""Seconds that a process of torchrun other than the first waits before it prints an error. torchrun ends all processes
after one has failed, within that time, so an error that all processes share is printed once.
"""
FLAGS = {"corpus": "data.corpus", "root": "data.root", "set": "data.subset", "device": "device", "run": "run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 success, 2 invalid input, 130 stopped by a signal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # file names may contain any bytes
    parser = _parser()
    args = parser.parse_intermixed_args(argv)
    _refuse_contradictions(parser, args)
    try:
        return _run(args)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        if rank != "0" or isinstance(error, ProcessLost):
            time.sleep(PAUSE)
        print(f"{'' if rank == '0' else f'process {rank}: '}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(str(stopped) or "Stopped before the first step; nothing was saved.", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    # Heavy imports happen after parsing, so that --help does not wait for torch.
    from inference.settings.overrides import quoted
    from inference.settings.resolve import load_run_settings, resolve, to_yaml

    keep_freed_memory()
    flags = {key: getattr(args, flag) for flag, key in FLAGS.items()}
    overrides = [*(f"{key}={quoted(value)}" for key, value in flags.items() if value is not None), *args.settings]
    if args.resume is None:
        settings = resolve(args.model, args.guide, args.config, overrides)
    elif args.print_config:
        settings = load_run_settings(args.resume, overrides)
    else:
        from inference.training.session import resume

        resume(args.resume, overrides)
        return 0
    if args.print_config:
        print(to_yaml(settings), end="")
        return 0
    from inference.training.session import start

    start(settings)
    return 0


def _refuse_contradictions(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.resume is None:
        return
    for flag in ("model", "guide", "config", "run"):
        if getattr(args, flag) is not None:
            parser.error(f"--resume uses the {flag} of the run: omit --{flag}, or start a new run")


def _parser() -> argparse.ArgumentParser:
    from guides.registry import guide_names
    from models.registry import model_names

    parser = argparse.ArgumentParser(
        prog="python -m inference.svi",
        description="Train a dynamical VAE by stochastic variational inference.",
        epilog="All settings and their defaults: python -m inference.svi --model dkf --print-config. "
        "For several trainings on one machine at a time, limit the threads of each (OMP_NUM_THREADS=1): more threads "
        "than cores slow all of them down.",
    )
    parser.add_argument("--model", metavar="M", help="the generative model: " + ", ".join(model_names()))
    parser.add_argument("--guide", metavar="G", help="the inference model: " + ", ".join(guide_names()))
    parser.add_argument("--corpus", metavar="C", help="synthetic (default, built in), folder, ...")
    parser.add_argument("--root", metavar="DIR", help="folder of the corpus")
    parser.add_argument("--set", metavar="NAME", help="subset of a corpus that has several (data.subset)")
    parser.add_argument("--config", metavar="YAML", help="settings: a file, or a packaged one by name")
    parser.add_argument("--run", metavar="DIR", help="run folder to create (default: runs/MODEL-GUIDE-TIME)")
    parser.add_argument("--resume", metavar="DIR", type=Path, help="run folder to resume")
    parser.add_argument("--device", metavar="D", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--print-config", action="store_true", help="print the resolved settings and stop")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, such as optim.lr=1e-4")
    return parser


if __name__ == "__main__":
    sys.exit(main())
