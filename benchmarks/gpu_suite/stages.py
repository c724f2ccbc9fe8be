"""The stages, which run one after another, and their parts, each of which is a process."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["PACKING", "Options", "Part", "Stage", "fitting", "stages"]

ROOT = Path(__file__).parents[2]
RECURRENT = ("vae", "dkf", "storn", "vrnn", "srnn", "rvae", "dsae")
SMALL = [f"{part}.{size}" for part in ("model", "guide") for size in ("d_model=64", "ff=128", "layers=2")]
SETTINGS = {"hit_dvae": SMALL, "light_dvae": SMALL}
"""Settings of models that are large by default."""
SIZES = {"cpu": (8, 4, 33), "cuda": (150, 32, 257)}
"""Frames T, sequences N and bins F of a batch, by the kind of device."""
PACKING = 5.0
"""Seconds reserved for the archive and the table."""


class Options(NamedTuple):
    """Options of the command line.

    Attributes:
        device: cpu, cuda, cuda:1, ...
        models: names of the models.
        corpus: arguments of a training that select the corpus.
        scratch: folder for temporary files.
        cores: CPU cores.
    """

    device: str
    models: Sequence[str]
    corpus: Sequence[str]
    scratch: Path
    cores: int


class Part(NamedTuple):
    """A process.

    Attributes:
        name: name of its results, STAGE/NAME.
        command: its command line.
        without: arguments that are omitted in a second try, if the first one failed within `driver.EARLY` seconds;
            if empty, there is no second try.
        run: run folder of a training.
        report: JSON file written by an evaluation.
        ok: exit statuses that count as success.
        keep_output: whether the end of its output is part of the results.
    """

    name: str
    command: Sequence[str]
    without: Sequence[str] = ()
    run: Path | None = None
    report: Path | None = None
    ok: Sequence[int] = (0,)
    keep_output: bool = False


class Stage(NamedTuple):
    """Parts that run together.

    Attributes:
        name: name of the stage.
        rank: stages of the highest rank are omitted first if not all of them fit.
        least: minimum time in seconds; with less, the stage is omitted.
        most: maximum time in seconds; None: no limit of its own.
        parts: its parts, in order; those that have not started at the end of the time are omitted.
        at_once: number of parts that run at the same time.
        gated: whether parts wait for a line of input before they use the device, so that the next part imports its
            modules while the present one is measured.
        background: whether the next stages start while this one runs.
        needs: name of a background stage that must end first; it is omitted together with all stages that need it.
    """

    name: str
    rank: int
    least: float
    most: float | None
    parts: Sequence[Part]
    at_once: int = 1
    gated: bool = False
    background: bool = False
    needs: str = ""


def stages(options: Options) -> list[Stage]:
    """All stages, in the order in which they run."""
    few, models = max(1, min(options.cores, 8)), options.models
    kind = options.device.split(":")[0]
    checks = [_part(options, "agreement", model) for model in models]
    checks += [_part(options, "rnn_matrix"), *(_tests(options, file) for file in _test_files())]
    profiled = [model for model in ("vrnn", "rvae") if model in models]
    chained = [model for model in ("dkf", "srnn", "vrnn", "rvae") if model in models]
    trained = [_training(options, model) for model in models]
    judged = [_likelihood(options, model) for model in ("vrnn", "dkf") if model in models]
    every = [
        Stage("machine", 0, 8, 40, [_part(options, "machine")]),
        Stage("features", 3, 0, None, [_part(options, "features", extra=options.corpus)], background=True),
        Stage("constants", 1, 8, 30, [_part(options, "constants")]),
        Stage("checks", 2, 25, 110, checks, at_once=few),
        Stage("timing", 3, 20, 110, [_part(options, "timing", model) for model in models], gated=kind != "cpu"),
        Stage("kernels", 5, 12, 30, [_part(options, "kernels", model) for model in profiled], gated=kind != "cpu"),
        Stage("loops", 5, 12, 60, [_part(options, "loops", model) for model in chained], gated=kind != "cpu"),
        Stage("training", 4, 40, None, trained, at_once=len(trained), needs="features"),
        Stage("likelihood", 6, 15, 45, judged, at_once=2),
    ]
    return [stage for stage in every if stage.parts]


def fitting(every: Sequence[Stage], seconds: float) -> list[Stage]:
    """The stages whose minimum times fit in the given seconds, by rank.

    Example:
        >>> [s.name for s in fitting([Stage("a", 2, 9, 9, []), Stage("b", 0, 5, 9, []), Stage("c", 1, 9, 9, [])], 15.0)]
        ['b', 'c']
    """
    kept: set[str] = set()
    for stage in sorted(every, key=lambda stage: stage.rank):
        seconds -= stage.least
        if seconds < 0:
            break
        kept.add(stage.name)
    needed = {stage.needs for stage in every if stage.name in kept}
    return [stage for stage in every if stage.name in (needed if stage.background else kept)]


def _part(options: Options, module: str, model: str | None = None, extra: Sequence[str] = ()) -> Part:
    sizes = zip(("--frames", "--sequences", "--bins"), SIZES[options.device.split(":")[0]], strict=True)
    command = [sys.executable, "-m", f"benchmarks.gpu_suite.parts.{module}", "--device", options.device]
    command += [text for name, size in sizes for text in (name, str(size))]
    command += ["--scratch", str(options.scratch), *extra]
    if model is None:
        return Part(module, command)
    return Part(f"{module}/{model}", [*command, "--model", model, *SETTINGS.get(model, [])])


def _test_files() -> list[Path]:
    """The files with tests that need a GPU."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        file for file in files if re.search(r"^@pytest\.mark\.cuda", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def _tests(options: Options, file: Path) -> Part:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", str(file)]
    return Part(f"tests/{file.stem}", command, keep_output=True)


def _training(options: Options, model: str) -> Part:
    run = options.scratch / "runs" / model
    command = [sys.executable, "-m", "inference.svi", "--model", model, "--device", options.device, "--run", str(run)]
    command += [*options.corpus, f"data.cache={options.scratch / 'features'}", *SETTINGS.get(model, [])]
    command += ["train.steps=10000000", "train.epochs=null", "train.patience=null", "train.checkpoint_every=500"]
    command += ["train.log_every=10", "train.tensorboard=false"]
    record = ["train.cuda_graph=true"] if options.device.startswith("cuda") else []
    return Part(f"training/{model}", [*command, *record], without=record, run=run, ok=(0, 130))


def _likelihood(options: Options, model: str) -> Part:
    run, report = options.scratch / "runs" / model, options.scratch / f"likelihood-{model}.json"
    command = [sys.executable, "-m", "evaluation.likelihood", str(run), "--device", options.device, "--cut"]
    command += ["--estimator", "elbo", "iwae", "--particles", "20", "--json", str(report)]
    return Part(f"likelihood/{model}", command, report=report)
