"""Memory, start-up and waiting of a training on a stream, whatever its length, and the rate of reading.

python -m corpora.shard --corpus folder --root data/speechocean --out shards
python -m benchmarks.streaming --shards shards --hours 1 100 --json streaming.json

The training shards are linked again and again, under other numbers, until they last so many hours: nothing is copied.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import keep
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError

__all__ = ["main", "measure"]

Report = dict[str, Any]

TRAINING = """
import json, resource, sys, time
began = time.perf_counter()
from dvae_pyro.allocator import keep_freed_memory
keep_freed_memory()  # as the command does
from inference.settings.resolve import resolve
from inference.training import loop, session
first, step = [], loop.train_step
def timed(job, state, part):
    first.extend([time.perf_counter() - began, time.process_time()]) if not first else None
    return step(job, state, part)
loop.train_step = timed
session.start(resolve("dkf", overrides=sys.argv[1:]), lambda line: print(line, file=sys.stderr))
memory = {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
print(json.dumps({"startup_s": first[0], "startup_cpu_s": first[1], **memory}))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    parser = Parser("benchmarks.streaming", "Measure training on a stream.")
    parser.add_argument("--shards", type=Path, required=True, metavar="DIR", help="made by python -m corpora.shard")
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 100.0], metavar="H", help="lengths (1 100)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="training steps of each (200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_settings()

    def command() -> None:
        args = parser.parse(argv)
        report = measure(args.shards, args.hours, args.steps, args.settings)
        keep(args.json, report)
        for row in report["trainings"]:
            print(
                f"{row['hours']:.3g} h in {row['shards']} shards: first step after {row['startup_s']:.1f} s "
                f"({row['startup_cpu_s']:.1f} s of CPU), peak memory {row['peak_mb']:.0f} MB, "
                f"waiting for data {row['data_wait']:.1%} of the time"
            )
        print(f"reading and features: {report['hours_per_cpu_second']:.3f} hours of sound per second of one core")

    return guarded(command)


def measure(shards: Path, hours: Sequence[float], steps: int, settings: Sequence[str] = ()) -> Report:
    """Train on a stream of each length, and read one shard alone.

    Returns:
        What `--json` writes.

    Raises:
        UserError: for a folder without shards of training and validation, or lengths that are not positive.
    """
    from corpora.recipes.lhotse.shar import shards_in

    if not all((shards / split).is_dir() for split in ("train", "valid")):
        raise UserError(f"no folders train/ and valid/ in {shards}: python -m corpora.shard makes them.")
    if min(hours) <= 0:
        raise UserError(f"--hours {min(hours):g}: expected more than 0.")
    found = shards_in(shards / "train")
    lasting = [_seconds(shard.cuts) for shard in found]
    report: Report = {"trainings": [], "hours_per_cpu_second": _rate(shards / "train")}
    for length in hours:
        with tempfile.TemporaryDirectory() as scratch:
            folder, seconds, number = Path(scratch) / "train", 0.0, 0
            folder.mkdir()
            (Path(scratch) / "valid").symlink_to((shards / "valid").absolute())
            while seconds < 3600 * length:
                shard = found[number % len(found)]
                for path, name in ((shard.cuts, "cuts"), (shard.recordings, "recording")):
                    ending = path.name.split(".", 2)[2]
                    (folder / f"{name}.{number:06d}.{ending}").symlink_to(path.absolute())
                seconds += lasting[number % len(found)]
                number += 1
            row = {"hours": seconds / 3600, "shards": number, **_trained(Path(scratch), steps, settings)}
            report["trainings"].append(row)
    return report


def _trained(root: Path, steps: int, settings: Sequence[str]) -> Report:
    run = root / "run"
    given = ["data.corpus=lhotse", f"data.root={root}", f"run={run}", f"train.steps={steps}", "train.tensorboard=false"]
    command = [sys.executable, "-c", TRAINING, *given, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode != 0:
        raise UserError(f"the training failed:\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    waits = [line["data_wait"] for line in lines if line["split"] == "train"]
    return {**json.loads(done.stdout.splitlines()[-1]), "steps": steps, "data_wait": sum(waits) / len(waits)}


def _rate(folder: Path) -> float:
    """Hours of sound that are read, cut and made into spectra in a second of one core."""
    import torch

    from corpora.frontends.stft import Stft
    from corpora.recipes.lhotse.shar import shards_in
    from corpora.streaming.encoding import encoding_of
    from corpora.streaming.pieces import load_piece, pieces_of_shards

    encoding = encoding_of(Stft(16000, 512, 256))
    piece = pieces_of_shards(folder)[0]
    load_piece(piece, encoding, 100, False, True)  # imports
    began = time.process_time()
    segments = load_piece(piece, encoding, 100, False, True).segments
    for start in range(0, len(segments), 32):
        encoding.features(segments[start : start + 32], torch.device("cpu"))
    return _seconds(shards_in(folder)[0].cuts) / 3600 / (time.process_time() - began)


def _seconds(cuts: Path) -> float:
    """How long the recordings of a shard last."""
    opened = gzip.open if cuts.suffix == ".gz" else open
    with opened(cuts, "rt", encoding="utf-8") as lines:
        return sum(float(json.loads(line)["duration"]) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
