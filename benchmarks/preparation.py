"""Time to prepare a corpus of recordings, and to read it from a cache.

python -m benchmarks.preparation --root data/librispeech-mini --hours 1 --json preparation.json

The recordings below a folder are linked repeatedly into a temporary corpus until it has the given duration; reading,
decoding and the computation of features are timed, as in training.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.arguments import keep
from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.recipes.folder import find_audio
from corpora.registry import open_corpus
from corpora.settings import DataSettings
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError

__all__ = ["main", "measure"]

Report = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser("benchmarks.preparation", "Time to prepare a corpus of recordings.")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder with recordings")
    parser.add_argument("--hours", type=float, default=1.0, metavar="H", help="duration of the corpus (1)")
    parser.add_argument("--bins", type=int, default=257, metavar="F", help="frequency bins (257)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")

    def command() -> None:
        args = parser.parse(argv)
        report = measure(args.root, args.hours, args.bins)
        keep(args.json, report)
        print(
            f"{report['hours']:.2f} h in {report['files']} files: computed in {report['computed_s']:.1f} s "
            f"({report['computed_cpu_s']:.1f} s of CPU), read from a cache of {report['megabytes']:.0f} MB in "
            f"{report['kept_s']:.2f} s ({report['kept_cpu_s']:.2f} s of CPU)"
        )

    return guarded(command)


def measure(root: Path, hours: float, bins: int = 257) -> Report:
    """Prepare a corpus twice: the features are computed and cached, then read from the cache.

    Returns:
        The report: hours, files, megabytes of features, and wall-clock and CPU seconds of both.

    Raises:
        UserError: the duration is not positive, or the folder contains no recordings.
    """
    if not hours > 0:
        raise UserError(f"--hours {hours:g}: expected more than 0.")
    recordings = find_audio(root, root) if root.is_dir() else []
    if not recordings:
        raise UserError(f"no recordings below {root}: give a folder with some as --root.")
    with tempfile.TemporaryDirectory() as scratch:
        folder, seconds, files = Path(scratch) / "corpus", 0.0, 0
        for turn, file in ((turn, file) for turn in itertools.count() for file in recordings):
            if seconds >= 3600 * hours:
                break
            link = folder / "train" / f"{turn}" / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((root / file).absolute())
            info = soundfile.info(link)
            seconds, files = seconds + info.frames / info.samplerate, files + 1
        data = DataSettings(corpus="folder", layout="splits", root=str(folder), hop=bins - 1, trim_db=None)
        corpus, frontend = open_corpus(data, 0, ["train"]), open_frontend(data, bins)
        report: Report = {"hours": seconds / 3600, "files": files, "bins": bins}
        for name in ("computed", "kept"):
            wall, cpu = time.perf_counter(), time.process_time()
            load_sequences(corpus, "train", frontend, sequence_frames=None, cache=str(Path(scratch) / "cache"))
            report[f"{name}_s"], report[f"{name}_cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
        report["megabytes"] = sum(path.stat().st_size for path in (Path(scratch) / "cache").iterdir()) / 1e6
    return report


if __name__ == "__main__":
    sys.exit(main())
