"""Long trainings, one after another, in order of rank: ``python -m benchmarks.trainings --root DIR``.

Each training has a run folder under ``--runs``. A finished training is skipped, an unfinished one is resumed from its
last checkpoint, so the command may be interrupted at any time (Ctrl-C, SIGTERM, a power cut) and repeated. ``--list``
shows the progress of each training; ``trainings.jsonl`` has the duration and command of every start.

The corpus is a folder with train/, valid/ and test/ (docs/reference/corpora.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError

__all__ = ["TRAININGS", "Training", "main", "progress"]

SPECTRA = [
    "model.input=log",
    "model.variance_floor=1e-10",
    "data.sequence_frames=100",
    "optim.lr=3e-3",
    "optim.clip=5",
    "optim.schedule=plateau",
    "train.epochs=300",
    "train.patience=40",
    "train.kl_warmup_epochs=10",
    "train.log_every=10",
]
"""The library's defaults for long trainings; the benchmark paper has a constant rate over 500 epochs of nine hours."""
SEGMENTS = [
    "data.rate=16000",
    "optim.schedule=cosine",
    "train.epochs=200",
    "train.patience=40",
    "train.log_every=10",
    "train.discriminative.sequences=5000",  # rows of the table in closed form: few updates do not move them far enough
]
WAVEFORMS = ["train.steps=20000", "train.log_every=20"]
SMALL = ["train.steps=8000", "train.log_every=10"]
LIKE_SMALL = [
    *SMALL,
    "data.corpus=folder",
    "model.input=log",
    "optim.lr=1e-3",
    "optim.clip=5",
    "optim.warmup_steps=100",
    "optim.decay_steps=null",
    "train.batch_size=8",
    "train.objective=elbo",
]
"""What gives the baselines of the LigHT paper the data and the optimiser of the reduced settings ``small_*``."""


class Training(NamedTuple):
    """One training of the list.

    Attributes:
        name: name of its run folder.
        config: name of a packaged config.
        overrides: settings, ``key=value``.
    """

    name: str
    config: str
    overrides: Sequence[str]

    def of_seed(self, seed: int) -> Training:
        """This training with another seed."""
        return self._replace(name=f"{self.name}-seed{seed}", overrides=[*self.overrides, f"seed={seed}"])


_BENCHMARK = [
    Training(name, f"benchmark2021/{config}", SPECTRA)
    for name, config in (
        ("vae", "vae"),
        ("dkf", "dkf_equal_kl"),
        ("rvae", "rvae"),
        ("srnn", "srnn_equal_kl"),
        ("vrnn", "vrnn_equal_kl"),
        ("storn", "storn"),
        ("dsae", "dsae_equal_kl"),
    )
]
_ONE_LAYER = Training("dkf-one-layer", "benchmark2021/dkf_equal_kl", [*SPECTRA, "model.z_x=[128]"])
"""A DKF with the VAE's decoder of one layer in place of four, which train slowly."""
_FHVAE = {
    alpha: Training(
        f"fhvae-alpha{alpha.replace('.', '')}",
        "fhvae2017/verification32_alpha10",
        [*SEGMENTS, f"train.discriminative.alpha={alpha}"],
    )
    for alpha in ("10", "0", "1", "0.1")
}
# Steps that take about the same time on one thread; those of SRNN on its own output take three times as long.
_LIGHT = [
    Training("light", "light2023/small_light", SMALL),
    Training("hit", "light2023/small_hit", [*SMALL, "train.steps=5000"]),
    Training(
        "srnn-ss",
        "light2023/srnn_ss_vb",
        [
            *LIKE_SMALL,
            "train.steps=2600",
            "train.scheduled_sampling.start_epoch=2",
            "train.scheduled_sampling.end_epoch=6",
        ],
    ),
]
_LIGHT_BASELINES = [
    Training(name.replace("_", "-"), f"light2023/{name}", [*LIKE_SMALL, f"train.steps={steps}"])
    for name, steps in (("rvae_vb", 17000), ("srnn_tf_vb", 15700), ("dkf_vb", 22000), ("vae_vb", 77000))
]
_MS_STCN = [
    Training(name, f"ms_stcn2021/small_{name}", WAVEFORMS)
    for name in ("fw200", "fw200_no_multiscale", "fw25", "fw25_no_multiscale")
]
_FIRST = [*_BENCHMARK, _FHVAE["10"], _FHVAE["0"], *_LIGHT, *_MS_STCN]
_REST = [
    _ONE_LAYER,
    _FHVAE["1"],
    _FHVAE["0.1"],
    Training("original-rvae", "benchmark2021/original_rvae", SPECTRA),
    *(Training(f"{name}-historical-kl", f"benchmark2021/{name}", SPECTRA) for name in ("dkf", "vrnn", "srnn", "dsae")),
    *_LIGHT_BASELINES,
    *(Training(name, f"light2023/small_{name}", SMALL) for name in ("light_inv_s", "light_inv_s_nr")),
    *(
        Training(name, f"light2023/small_{name}", [*SMALL, "train.steps=5000"])
        for name in ("hit_inv_s", "hit_inv_s_nr")
    ),
    *(
        Training(name, f"ms_stcn2021/small_{name}", WAVEFORMS)
        for name in ("fw200_no_latents", "fw25_no_latents", "stcn_moderate")
    ),
]

TRAININGS: list[Training] = [
    *_FIRST,
    *(training.of_seed(seed) for seed in (1, 2) for training in _BENCHMARK),
    *_REST,
]
"""In order of rank: one seed of the models that the papers' claims are about, further seeds, then the rest."""


def progress(run: Path) -> dict[str, Any]:
    """The progress of a run: its state ("waiting", "begun", "finished"), steps, best validation bound in nats per
    frame, and the reason for which it finished.
    """
    if not (run / "last.pt").is_file():
        return {"state": "waiting", "step": 0, "best": None, "reason": ""}
    from inference.checkpoints.files import load_checkpoint
    from inference.checkpoints.state import read
    from inference.settings.resolve import load_run_settings
    from inference.training.loop import over

    state = read(load_checkpoint(run / "last.pt"))
    reason = over(load_run_settings(run).train, state)
    return {"state": "finished" if reason else "begun", "step": state.step, "best": state.best, "reason": reason}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(
        "benchmarks.trainings",
        "Train the models of the papers one after another; the command can be interrupted and repeated.",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="the corpus: a folder with train/, valid/, test/")
    parser.add_argument("--runs", type=Path, default=Path("runs/trainings"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these trainings, in the order of the list")
    parser.add_argument("--list", action="store_true", help="print the progress of each training and stop")
    parser.add_settings()
    return guarded(lambda: _command(parser.parse(argv)))


def _command(given: argparse.Namespace) -> None:
    chosen = [t for t in TRAININGS if given.only is None or t.name in given.only]
    unknown = set(given.only or ()) - {t.name for t in TRAININGS}
    if unknown:
        raise UserError(f"--only {' '.join(sorted(unknown))}: unknown training. Known: {_names()}.")
    if given.list:
        for rank, training in enumerate(chosen, start=1):
            now = progress(given.runs / training.name)
            best = "" if now["best"] is None else f"best {now['best']:.2f}"
            print(
                f"{rank:3d} {training.name:28s} {now['state']:9s} step {now['step']:6d} {best} {now['reason']}".rstrip()
            )
        return
    if given.root is None:
        raise UserError("--root DIR is missing: the corpus to train on, a folder with train/, valid/ and test/.")
    for training in chosen:
        if progress(given.runs / training.name)["state"] != "finished":
            _train(training, given)


def _train(training: Training, given: argparse.Namespace) -> None:
    """Start or resume a training; its output is written to its log."""
    run = given.runs / training.name
    svi = [sys.executable, "-m", "inference.svi"]
    begun = (run / "last.pt").is_file()
    new = ["--config", training.config, "--corpus", "folder", "--root", str(given.root), "--run", str(run)]
    command = [*svi, "--resume", str(run)] if begun else [*svi, *new, *training.overrides, *given.settings]
    given.runs.mkdir(parents=True, exist_ok=True)
    print(f"{training.name}: {'resumed' if begun else 'started'}; its output is in {run}.log", flush=True)
    started = time.time()
    with open(f"{run}.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            status = process.wait()
        except BaseException:
            process.terminate()  # it saves, and stops
            process.wait()
            raise
        finally:
            line = {"name": training.name, "command": command[1:], "seconds": round(time.time() - started, 1)}
            with open(given.runs / "trainings.jsonl", "a", encoding="utf-8") as lines:
                lines.write(json.dumps(line | {"status": process.returncode}) + "\n")
    if status != 0:
        print(
            f"{training.name}: ended with status {status}, see the end of {run}.log. "
            "Continuing with the next training.",
            flush=True,
        )


def _names() -> str:
    return ", ".join(training.name for training in TRAININGS)


if __name__ == "__main__":
    sys.exit(main())
