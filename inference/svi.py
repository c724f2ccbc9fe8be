"""Train a model by stochastic variational inference, or resume a run.

python -m inference.svi --model dkf
python -m inference.svi --model dkf --corpus folder --root data/librispeech-mini --run runs/dkf
python -m inference.svi --resume runs/dkf train.steps=1200
torchrun --nproc-per-node 2 -m inference.svi --model dkf
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.command_line import DEVICE_HELP, Parser, guarded
from dvae_pyro.errors import ProcessLost, UserError

__all__ = ["main"]

PAUSE = 5.0
"""Seconds that a process of torchrun other than the first waits before it prints an error. torchrun ends all processes
after one has failed, within that time, so an error that all processes share is printed once.
"""
FLAGS = {"corpus": "data.corpus", "root": "data.root", "set": "data.subset", "device": "device", "run": "run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 success, 2 invalid input, 130 stopped by a signal."""

    rank = os.environ.get("RANK", "0")

    def command() -> None:
        parser = _parser()
        args = parser.parse(argv)
        _refuse_contradictions(parser, args)
        try:
            _run(args)
        except UserError as error:
            if rank != "0" or isinstance(error, ProcessLost):
                time.sleep(PAUSE)
            if rank != "0":
                raise UserError(f"process {rank}: {error}") from error
            raise
        except KeyboardInterrupt:
            if rank != "0":
                sys.exit(130)
            raise

    return guarded(command, "Stopped before the first step; nothing was saved.")


def _run(args: argparse.Namespace) -> None:
    # Heavy imports happen after parsing, so that --help does not wait for torch.
    from inference.settings.overrides import quoted
    from inference.settings.resolve import load_run_settings, resolve, to_yaml

    flags = {key: getattr(args, flag) for flag, key in FLAGS.items()}
    overrides = [*(f"{key}={quoted(value)}" for key, value in flags.items() if value is not None), *args.settings]
    if args.resume is None:
        settings = resolve(args.model, args.guide, args.config, overrides)
    elif args.print_config:
        settings = load_run_settings(args.resume, overrides)
    else:
        from inference.training.session import resume

        resume(args.resume, overrides)
        return
    if args.print_config:
        print(to_yaml(settings), end="")
        return
    from inference.training.session import start

    start(settings)


def _refuse_contradictions(parser: Parser, args: argparse.Namespace) -> None:
    if args.resume is None:
        return
    for flag in ("model", "guide", "config", "run"):
        if getattr(args, flag) is not None:
            parser.error(f"--resume uses the {flag} of the run: omit --{flag}, or start a new run")


def _parser() -> Parser:
    from inference.settings.arguments import add_model_arguments  # imports guides and models, which may be shadowed

    parser = Parser(
        "inference.svi",
        "Train a dynamical VAE by stochastic variational inference.",
        epilog="All settings and their defaults: python -m inference.svi --model dkf --print-config. A step on 32 "
        "sequences of 150 frames takes 0.06 (vae) to 0.3 s (dsae) on two cores; the bar shows the time left. "
        "For several trainings on one machine at a time, limit the threads of each (OMP_NUM_THREADS=1): more threads "
        "than cores slow all of them down.",
    )
    add_model_arguments(parser)
    parser.add_argument("--corpus", metavar="C", help="synthetic (default, built in), folder, ...")
    parser.add_argument("--root", metavar="DIR", help="folder of the corpus")
    parser.add_argument("--set", metavar="NAME", help="subset of a corpus that has several (data.subset)")
    parser.add_argument("--run", metavar="DIR", help="run folder to create (default: runs/MODEL-GUIDE-TIME)")
    parser.add_argument("--resume", metavar="DIR", type=Path, help="run folder to resume")
    parser.add_argument("--device", metavar="D", help=DEVICE_HELP)
    parser.add_argument("--print-config", action="store_true", help="print the resolved settings and stop")
    parser.add_settings()
    parser.usage = f"{parser.prog} (--model M | --config YAML | --resume DIR) [options] [key=value ...]"
    return parser


if __name__ == "__main__":
    sys.exit(main())
