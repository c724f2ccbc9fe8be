"""The numbers that no change of the code's form may move: ``python -m tests.golden.pin`` writes them down anew.

Pinned in ``golden.json``, from the settings that ``settings.yaml`` holds in full and from data of `tests.golden.data`:

- ``trained``: every registered model with its own guide: loss, each KL and the gradient's norm of 30 training steps,
  then two generated sequences and likelihood estimates; of an FHVAE also speaker verification. Variants of training
  (`TRAINED_ONLY`): the steps alone.
- ``published``: ELBO and importance-weighted bound of the published checkpoints in the folder that ``DVAE_SHARED``
  names.
- ``old``: evaluations of run folders that an earlier version made (``old_runs``, never made anew), and six steps of
  resuming each of them.

Everything goes through command lines (``python -m``, run in this process) and run folders, so few names are used.
Pinning anew needs a reason in CHANGELOG.md.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import runpy
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from omegaconf import OmegaConf

from inference.prediction.generation import generate
from inference.runs import load_run
from tests.golden.data import FORMS, make_sounds

__all__ = ["GOLDEN", "OLD", "SETTINGS", "of_old", "of_published", "of_trained"]

HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"
SETTINGS: dict[str, dict[str, Any]] = OmegaConf.to_container(OmegaConf.load(HERE / "settings.yaml"))  # type: ignore[assignment]  # keys are names
OLD_RUNS = HERE / "old_runs"
OLD = sorted(path.name for path in OLD_RUNS.iterdir() if path.is_dir())
TRAINED_ONLY = ("dkf-fivo", "dkf-all-memory", "vrnn-dreg", "srnn-scheduled", "dsae-free_bits", "stcn-precision")
"""Golden runs that differ from others in how they are trained, or in their guide."""

Maker = Callable[[Path], dict[str, Any]]


def of_trained(name: str, folder: Path) -> dict[str, Any]:
    """Train the golden run of a name in an empty folder, and evaluate what came of it."""
    settings, run = SETTINGS[name], folder / "run"
    data = settings["data"]
    FORMS[data["corpus"]](folder / "data")
    OmegaConf.save(OmegaConf.create(settings), folder / "config.yaml")
    _call("inference.svi", "--config", folder / "config.yaml", "--root", folder / "data", "--run", run)
    found: dict[str, Any] = {"steps": _steps(run)}
    if name in TRAINED_ONLY:
        return found
    model = load_run(run, "last.pt").model
    found["generated"] = generate(model, 2, 6, seed=5)[0][..., :6].tolist()
    estimators = "elbo,iwae,smc" if model.stepwise else "elbo,iwae"
    found["likelihood"] = _likelihood(run, estimators, *([] if data["sequence_frames"] is None else ["--cut"]))
    if name == "fhvae":
        _call("evaluation.verification", run, "--checkpoint", "last.pt")
        found["verification"] = json.loads(_report(run, "verification.json").read_text())["eer"]
    return found


def of_published(tag: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Bounds of a published checkpoint on sounds made up, in double precision."""
    make_sounds(folder / "data")
    run = folder / "run"
    _call("models.published", weights / f"{tag}.npz", weights / f"{tag}.ini", "--run", run)
    corpus = ("--corpus", "folder", "--root", folder / "data")
    return _likelihood(run, "elbo,iwae", *corpus, "dtype=float64")


def of_old(name: str, folder: Path) -> dict[str, Any]:
    """Evaluate a copy of an old run, and go on with it for some steps."""
    run = folder / "run"
    shutil.copytree(OLD_RUNS / name, run)
    settings: Any = OmegaConf.load(run / "config.yaml")
    where: list[str | Path] = []
    if (form := FORMS.get(settings.data.corpus)) is not None:
        form(folder / "data")
        where = ["--root", folder / "data"]
    found: dict[str, Any] = {
        "likelihood": _likelihood(run, "elbo,iwae", *where, *(["--cut"] if name == "fhvae" else []))
    }
    if name == "dkf":
        _call("evaluation.resynthesis", run, "--jobs", "0")
        metrics = json.loads(_report(run, "resynthesis.json").read_text())["metrics"]
        found["resynthesis"] = {
            figure: metrics[figure]["mean"] for figure in ("is_per_frame", "kl_per_frame", "si_sdr")
        }
    before = len(_steps(run)["loss"])
    roots = [f"data.root={folder / 'data'}"] if where else []
    _call("inference.svi", "--resume", run, f"train.steps={before + 6}", *roots)
    found["resumed"] = {key: values[before:] for key, values in _steps(run).items()}
    return found


def published_tags(shared: Path) -> dict[str, Path]:
    """The published checkpoints by their names, and the folder that they are in."""
    weights = shared / "published-weights"
    return {path.stem: weights for path in sorted(weights.glob("*.npz"))}


def _call(command: str, *arguments: str | Path) -> None:
    """Run ``python -m command`` in this process, silently unless it fails."""
    said, status = io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)  # a command that ran before
        with mock.patch.object(sys, "argv", [command, *map(str, arguments)]):
            try:
                runpy.run_module(command, run_name="__main__")
            except SystemExit as end:
                status = end.code
    if status != 0:
        raise RuntimeError(f"{command} {[*map(str, arguments)]} ended with status {status}:\n{said.getvalue()}")


def _steps(run: Path) -> dict[str, list[float]]:
    """Loss, KLs and the gradient's norm of all training steps, by their names in ``metrics.jsonl``."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["split"] == "train"]
    return {key: [line[key] for line in lines] for key in lines[0] if key in ("loss", "grad_norm") or key[:3] == "kl_"}


def _report(run: Path, name: str) -> Path:
    """The only report of an evaluation, whose name has what differs from the run's defaults."""
    stem, _, ending = name.partition(".")
    (path,) = run.glob(f"{stem}*.{ending}")
    return path


def _likelihood(run: Path, estimators: str, *arguments: str | Path) -> dict[str, float]:
    """Likelihood estimates by the last weights, means over the sequences of split test."""
    of = ("--estimator", estimators, "--particles", "8", "--checkpoint", "last.pt")
    _call("evaluation.likelihood", run, *of, *arguments)
    with _report(run, "likelihood.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: sum(float(row[name]) for row in rows) / len(rows) for name in estimators.split(",")}


def main() -> int:
    """Compute everything and write it down; what the published checkpoints give stays where they are missing."""
    torch.set_num_threads(1)
    shared = Path(os.environ.get("DVAE_SHARED", HERE.parents[2] / "shared"))
    golden: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {"published": {}}
    makers: dict[str, dict[str, Maker]] = {
        "trained": {name: partial(of_trained, name) for name in SETTINGS},
        "old": {name: partial(of_old, name) for name in OLD},
        "published": {tag: partial(of_published, tag, at) for tag, at in published_tags(shared).items()},
    }
    for section, of_names in makers.items():
        found: dict[str, Any] = {} if of_names else golden[section]
        for name, make in of_names.items():
            print(f"{section} {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                found[name] = make(Path(folder))
        golden[section] = found
    GOLDEN.write_text(_one_line_each(golden))
    return 0


def _one_line_each(golden: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each run, so that a diff shows which have moved."""
    sections = (
        f'"{section}": {{\n' + ",\n".join(f'"{name}": {json.dumps(of_run)}' for name, of_run in runs.items()) + "\n}"
        for section, runs in golden.items()
    )
    return "{\n" + ",\n".join(sections) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
