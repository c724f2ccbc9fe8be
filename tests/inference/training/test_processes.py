"""Several processes train what one would: the same curve, the same files, one end for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dvae_pyro.errors import UserError
from inference.checkpoints.files import load_checkpoint
from inference.settings.resolve import resolve
from inference.training.session import resume, start
from tests.support.ports import free_ports
from tests.support.processes import run_together

WORKER = """
import hashlib, json, os, signal, sys
from pathlib import Path
import torch
from inference.training import loop as training, session as sessions
from inference.settings.resolve import resolve

torch.set_num_threads(1)
fit, step = sessions.fit, training.train_step

def fitted(job, state, log):
    state = fit(job, state, log)
    held = [*job.objective.state_dict().values(), torch.random.get_rng_state()]
    print("holds", hashlib.sha256(b"".join(v.numpy().tobytes() for v in held)).hexdigest(), flush=True)
    return state

def signalled(job, state, part):
    if job.run.name == "signalled" and job.world.rank == 1 and state.step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(job, state, part)

sessions.fit, training.train_step = fitted, signalled
for port, run, model, settings in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    say = lambda line: print(line, flush=True)
    if settings[-1] == "astray" and settings.pop() and os.environ["RANK"] == "1":
        settings.append("train.batch_size=3")
    try:
        sessions.start(resolve(model, overrides=settings), say) if model else sessions.resume(Path(run), settings, say)
    except (sessions.UserError, training.Stopped) as end:
        print("ended", end, flush=True)
"""

FAILING = """
import sys
from inference import svi
from inference.training import loop as training
step = training.train_step
def failing(job, state, part):
    if state.step == 4 and sys.argv[-1] == "fail=1" and job.world.rank == 1:
        raise RuntimeError("the memory of this process is spent")
    return step(job, state, part)
training.train_step = failing
sys.exit(svi.main(sys.argv[1:-1]))
"""


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Five files to train on, of as many lengths, and three to validate on; batches of four, so that one is alone."""
    import soundfile

    root, noise = tmp_path_factory.mktemp("ragged"), np.random.default_rng(0)
    for name, frames in (("train", (31, 24, 17, 40, 9)), ("valid", (21, 30, 12))):
        for k, count in enumerate(frames):
            path = root / name / f"s{k // 2}" / f"{k}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.clip(0.2 * noise.standard_normal((count - 1) * 16), -1, 1), 16000)
    return [
        "data.corpus=folder",
        f"data.root={root}",
        "data.hop=16",
        "data.trim_db=null",
        "data.sequence_frames=null",
        "model.bins=17",
        "train.batch_size=4",
        "train.tensorboard=false",
        "train.bucket=false",
        "dtype=float64",
        "model.z_dim=2",
    ]


SEGMENTS = ["data.frontend=stft", "data.sequence_frames=8", "model.segment=8", "model.h_dim=16", "guide.h_dim=16"]
CASES: dict[str, tuple[str, list[str]]] = {
    "dkf": ("dkf", ["train.steps=5", "optim.clip=0.1"]),
    "table": ("fhvae", [*SEGMENTS, "train.steps=4", "train.discriminative.sequences=null"]),
    "hierarchical": ("fhvae", [*SEGMENTS, "train.steps=7", "train.discriminative.sequences=2"]),
    "broken": ("vae", ["train.steps=5", "optim.lr=1e200"]),
}


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_second", "data_wait")} for line in found]


def curves_agree(one: Path, two: Path) -> None:
    a, b = lines(one), lines(two)
    assert [list(line) for line in a] == [list(line) for line in b] and len(a) >= 3
    for x, y in zip(a, b, strict=True):
        numbers = {k: v for k, v in x.items() if not isinstance(v, str)}
        assert numbers == pytest.approx({k: y[k] for k in numbers}, rel=1e-10, abs=1e-12), x
    first, second = load_checkpoint(one / "last.pt"), load_checkpoint(two / "last.pt")
    assert torch.equal(first["rng"], second["rng"]) and first["step"] == second["step"]
    for part in ("model", "guide"):
        for name, value in first[part].items():
            torch.testing.assert_close(value, second[part][name], rtol=1e-8, atol=1e-10)


Jobs = list[tuple[Path, str | None, list[str]]]


def test_two_processes_follow_the_curve_of_one(ragged: list[str], tmp_path: Path) -> None:
    def settings(run: str, more: list[str]) -> list[str]:
        return [*ragged, f"run={tmp_path / run}", *more]

    broken = ""
    for name, (model, more) in CASES.items():
        try:
            start(resolve(model, overrides=settings(f"one-{name}", more)), lambda line: None)
        except UserError as error:
            broken += str(error)
    model, more = CASES["hierarchical"]
    start(resolve(model, overrides=settings("begun", [*more, "train.steps=4"])), lambda line: None)
    jobs: Jobs = [(tmp_path, model, settings(f"two-{name}", more)) for name, (model, more) in CASES.items()]
    jobs += [
        (tmp_path / "begun", None, ["train.steps=7"]),
        (tmp_path, "vae", settings("astray", ["astray"])),
        (tmp_path, "dkf", settings("signalled", [*CASES["dkf"][1], f"data.cache={tmp_path / 'cache'}"])),
    ]
    (first, second), (_, shown) = run_together(WORKER, jobs)

    # Who speaks, and what each process holds in the end: the very same numbers.
    assert first.count("2 processes, each with its shard of every batch") == len(jobs)
    assert "reading" not in shown and "step" not in shown, "one progress bar"
    assert {line.split()[0] for line in second if line} <= {"holds", "ended", "nothing", "Files", "Last", "Resume"}
    assert sum("has read other data" in line for line in second) == 1
    assert sum("another process" in line for line in first) == 1
    held = [line for line in first if line.startswith("holds")]
    assert len(held) == len(jobs) - 3 and held == [line for line in second if line.startswith("holds")]

    # A loss that is no number is told as by one process: with the files of the whole batch.
    told = "\n".join(first)
    assert "is not finite" in broken and broken.replace("one-broken", "two-broken") in told

    # A run goes on in two processes, and one that a signal to the second has stopped in one.
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    assert f"Stopped at step 3 and saved {tmp_path / 'signalled' / 'last.pt'}" in told
    resume(tmp_path / "signalled", say=lambda line: None)
    for name, run in [(name, f"two-{name}") for name in CASES if name != "broken"] + [("dkf", "signalled")]:
        curves_agree(tmp_path / f"one-{name}", tmp_path / run)
    one, begun = lines(tmp_path / "one-hierarchical"), lines(tmp_path / "begun")
    assert {line["step"]: line["loss"] for line in begun} == pytest.approx(
        {line["step"]: line["loss"] for line in one}, rel=1e-10
    )


def torchrun(tmp_path: Path, ragged: list[str], *last: str) -> subprocess.Popen[str]:
    (tmp_path / "worker.py").write_text(FAILING)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command += [str(free_ports(1)[0]), str(tmp_path / "worker.py"), "--model", "vae", f"run={tmp_path / 'run'}"]
    settings = [*ragged, "train.steps=100000", "train.epochs=null", "train.patience=null", "train.checkpoint_every=2"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *settings, *last], env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_process_that_fails_ends_the_job_with_its_message(ragged: list[str], tmp_path: Path) -> None:
    with torchrun(tmp_path, ragged, "fail=1") as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode != 0 and error.count("RuntimeError: the memory of this process is spent") == 1
    assert "another process" not in error
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 4
    assert lines(tmp_path / "run")[-1]["step"] == 4


def test_ctrl_c_saves_once_and_says_how_to_go_on(ragged: list[str], tmp_path: Path) -> None:
    with torchrun(tmp_path, ragged, "fail=0") as process:
        while not (tmp_path / "run" / "best.pt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode != 0 and error.count("Stopped at step") == 1 and "--resume" in error
    step = load_checkpoint(tmp_path / "run" / "last.pt")["step"]
    assert f"Stopped at step {step} " in error and lines(tmp_path / "run")[-1]["step"] == step


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_follow_the_curve_of_one(ragged: list[str], tmp_path: Path) -> None:
    on_gpu = ["device=cuda", "train.steps=5"]
    start(resolve("vae", overrides=[*ragged, *on_gpu, f"run={tmp_path / 'one'}"]), lambda line: None)
    with torchrun(tmp_path, ragged, *on_gpu, "fail=0") as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    curves_agree(tmp_path / "one", tmp_path / "run")
