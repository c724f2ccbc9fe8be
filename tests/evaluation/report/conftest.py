"""Two small runs with initial weights, evaluated, and the page about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from evaluation.report.__main__ import main
from evaluation.resynthesis.__main__ import main as resynthesis
from tests.sounds import voice
from tests.support.runs import SMALL_SPECTRA, saved_run, write_sounds

SECONDS = (0.8, 0.9, 1.0, 1.1, 1.2, 0.7)


class Written(NamedTuple):
    """Run folders, and the page about them."""

    runs: list[Path]
    folder: Path

    @property
    def html(self) -> str:
        return (self.folder / "index.html").read_text()


def curves(run: Path, *, kl: float, lr: float = 1e-3) -> None:
    """A metrics.jsonl of 20 epochs of 10 steps, with a bound that rises to the end."""
    lines = []
    for step in range(1, 201):
        train = {"step": step, "epoch": 1 + (step - 1) // 10, "split": "train", "elbo": -50.0 + step, "kl_z": kl}
        train |= {
            "reconstruction": step - 50.0 + kl,
            "lr": lr,
            "beta": min(1.0, step / 40),
            "frames_per_second": 1000.0,
        }
        lines.append(train)
        if step % 10 == 0:
            lines.append({**train, "split": "valid"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report")
    sounds = {f"test/{s}/{i}.wav": voice(seconds) for i, seconds in enumerate(SECONDS) for s in ("ab"[i % 2],)}
    root = write_sounds(folder / "speech", sounds)
    runs: list[Path] = []
    for model, more in (("vae", ["model.z_x=[5]", "guide.x_z=[5]"]), ("dkf", ["train.beta=0.5"])):
        torch.manual_seed(len(runs))
        run = folder / model
        saved_run(run, model, *SMALL_SPECTRA, *more, "data.corpus=folder", f"data.root={root}", fit=torch.rand(9, 65))
        curves(run, kl=0.01 if model == "vae" else 5.0)
        where = ["--corpus", "folder", "--root", str(root)]
        assert resynthesis([str(run), *where, "--jobs", "0", "--without-pesq"]) == 0
        runs.append(run)
    assert main([*map(str, runs), "--out", str(folder / "page")]) == 0
    return Written(runs, folder / "page")
