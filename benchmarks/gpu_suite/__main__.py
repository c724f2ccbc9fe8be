"""All measurements on a GPU in one command of limited duration; each part is a process of its own.

python -m benchmarks.gpu_suite --minutes 9.5 --out DIR [--corpus folder --root DIR]

docs/how-to/gpu.md describes the stages. The command writes `results.jsonl` (a line of JSON for each figure, as soon as
it is measured), `log.txt`, `table.txt` and `runs.tar.gz.N` (metrics, weights, logs), and prints the table at the end.
`--device cpu` runs all parts at small sizes without a GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks.gpu_suite.driver import Driver
from benchmarks.gpu_suite.packing import pack
from benchmarks.gpu_suite.results import append, read
from benchmarks.gpu_suite.stages import RECURRENT, Options, stages
from benchmarks.gpu_suite.table import table
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors

__all__ = ["main"]

MODELS = (*RECURRENT, "hit_dvae", "light_dvae")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 when all parts have ended, failed or not; 2 for invalid
    arguments.
    """
    return guarded(lambda: _run(_parser().parse(argv)))


def _run(args: argparse.Namespace) -> None:
    started = time.monotonic()
    if not args.minutes > 0:
        raise UserError(f"--minutes {args.minutes:g}: expected more than 0.")
    if args.device.split(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"--device {args.device}: expected cuda, cuda:N or cpu.")
    from models.registry import model_names

    models = args.models.split(",")
    if unknown := [model for model in models if model not in model_names()]:
        raise UserError(f"--models {','.join(unknown)}: expected some of {', '.join(model_names())}.")
    every = stages(Options("cpu", models, (), Path(), 1))
    wanted = args.stages.split(",") if args.stages else [stage.name for stage in every]
    wanted += [stage.needs for stage in every if stage.name in wanted and stage.needs]
    if unknown := [name for name in wanted if name not in {stage.name for stage in every}]:
        raise UserError(f"--stages {','.join(unknown)}: expected some of {', '.join(stage.name for stage in every)}.")
    if (args.out / "results.jsonl").exists():
        raise UserError(f"{args.out} already holds results. Give another --out.")
    with disk_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    corpus = [text for flag in ("corpus", "root") if getattr(args, flag) for text in (f"--{flag}", getattr(args, flag))]
    scratch = Path(tempfile.mkdtemp(prefix="gpu-suite-"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = Options(args.device, models, corpus, scratch, cores)
    driver = Driver(args.out, scratch, 60.0 * args.minutes - (time.monotonic() - started), cores)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        driver.run([stage for stage in stages(options) if stage.name in wanted])
    except KeyboardInterrupt:
        print("stopped by a signal; the results so far are kept", flush=True)
    finally:
        try:
            if left_out := pack(scratch, args.out):
                append(args.out / "results.jsonl", {"part": "packing", "left_out": left_out})
            text = table(read(args.out / "results.jsonl"))
            (args.out / "table.txt").write_text(text + "\n", encoding="utf-8")
            print(text, flush=True)
        finally:
            signal.signal(signal.SIGTERM, before)
            shutil.rmtree(scratch, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> Parser:
    parser = Parser("benchmarks.gpu_suite", (__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=9.5, metavar="M", help="duration of the whole command (%(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for results")
    parser.add_argument(
        "--device", default="cuda", metavar="D", help="cuda (default), cuda:1, ...; cpu runs all parts at small sizes"
    )
    parser.add_argument("--models", default=",".join(MODELS), metavar="M,M", help="(%(default)s)")
    parser.add_argument(
        "--stages", metavar="S,S", help="run only these stages, and those that they need (default: all)"
    )
    parser.add_argument("--corpus", metavar="C", help="corpus to train on (default: synthetic, built in)")
    parser.add_argument("--root", metavar="DIR", help="folder of the corpus")
    return parser


if __name__ == "__main__":
    sys.exit(main())
