"""Compute the features of the corpus into the cache that all trainings read."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.gpu_suite.parts.common import Work


def main() -> None:
    """Compute the features with the settings of a training; records sizes and times."""
    work = Work()
    from corpora.frontends.registry import open_frontend
    from corpora.loading.sequences import load_split
    from corpora.registry import open_corpus
    from inference.settings.resolve import resolve

    given = {"data.corpus": work.corpus, "data.root": work.root, "data.cache": str(Path(work.scratch) / "features")}
    settings = resolve("vae", overrides=[f"{key}={value}" for key, value in given.items() if value])
    frontend = open_frontend(settings.data, settings.model.bins)
    corpus = open_corpus(settings.data, settings.data.seed, ("train", "valid"))
    for split in ("train", "valid"):
        started = time.monotonic()
        sequences = load_split(corpus, split, frontend, settings.data, print, cut=True, progress=False)
        frames = sum(len(item.x) for item in sequences)
        work.record(**{split: len(sequences), f"{split}_frames": frames, f"{split}_s": time.monotonic() - started})


if __name__ == "__main__":
    main()
