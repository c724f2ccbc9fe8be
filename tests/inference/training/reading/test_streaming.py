"""Training on streams: exact resuming, shares of processes, the choice between memory and stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from corpora.frontends.base import PassFrames
from corpora.streaming.encoding import encoding_of
from corpora.streaming.stream import Stream
from dvae_pyro.errors import UserError
from inference.checkpoints.files import load_checkpoint
from inference.checkpoints.state import TrainState
from inference.settings.resolve import resolve
from inference.training.distributed import ALONE, World
from inference.training.job import Job
from inference.training.reading.readers import StreamedData, reader_of
from inference.training.session import resume, start
from inference.training.steps import train_step
from tests.support.processes import run_together
from tests.support.streams import numbered

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty recordings of noise to train on, of 20 to 59 frames, and three to validate on."""
    root, noise = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for split, count in (("train", 40), ("valid", 3)):
        for n in range(count):
            path = root / split / f"s{n % 8}" / f"{n}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * noise.standard_normal(32 * (19 + n)), 16000)
    return root


@pytest.fixture(scope="module")
def shards(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards of five."""
    pytest.importorskip("lhotse")
    from corpora.shard import main

    out = tmp_path_factory.mktemp("made") / "shards"
    assert main(["--corpus", "folder", "--root", str(corpus), "--out", str(out), "--size", "5"]) == 0
    return out


def settings(shards: Path, run: Path, *more: str) -> list[str]:
    return [
        *("data.corpus=lhotse", f"data.root={shards}", "data.trim_db=null", "data.hop=32", "data.sequence_frames=15"),
        *("data.shuffle_shards=2", "model.bins=33", "model.z_dim=3", "dtype=float64"),
        *("train.batch_size=8", "train.tensorboard=false", "train.steps=30", "train.checkpoint_every=3"),
        *("train.patience=null", "train.kl_warmup_steps=5", f"run={run}", *more),
    ]


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_second", "data_wait")} for line in found]


def same_end(one: Path, two: Path) -> None:
    assert lines(one) == lines(two) and len(lines(one)) > 30
    a, b = load_checkpoint(one / "last.pt"), load_checkpoint(two / "last.pt")
    assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])


def quiet(line: str) -> None:
    """Say nothing."""


def test_a_killed_run_on_a_stream_goes_on_bit_for_bit(shards: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(resolve("vae", overrides=settings(shards, whole)), quiet)
    command = [sys.executable, "-m", "inference.svi", "--model", "vae"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *settings(shards, killed)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        path = killed / "metrics.jsonl"
        while not path.exists() or path.read_bytes().count(b"\n") < 9:  # in the first epoch, of 11 steps
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    at = load_checkpoint(killed / "last.pt")
    assert 0 < at["step"] < 30 and (at["position"] is not None)
    resume(killed, say=quiet)
    same_end(whole, killed)


@pytest.mark.parametrize("stop", [4, 11, 12])
def test_a_run_that_stopped_anywhere_goes_on_bit_for_bit(shards: Path, tmp_path: Path, stop: int) -> None:
    """In an epoch, at its end, and just after."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    start(resolve("vae", overrides=settings(shards, whole)), quiet)
    ends = [line["step"] for line in lines(whole) if line["split"] == "valid"]
    assert ends[0] == 11
    start(resolve("vae", overrides=settings(shards, parted, f"train.steps={stop}")), quiet)
    resume(parted, ["train.steps=30"], quiet)
    a = [line for line in lines(whole) if line["split"] == "train"]
    assert a == [line for line in lines(parted) if line["split"] == "train"]


def test_an_epoch_holds_every_sequence_once(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    sample: list[int] = []

    def noted(job: Job, *rest: Any) -> Any:
        sample.append(len(job.train.sequences))
        return train_step(job, *rest)

    monkeypatch.setattr("inference.training.loop.train_step", noted)
    one_epoch = settings(shards, tmp_path / "run", "train.steps=null", "train.epochs=1")
    start(resolve("vae", overrides=one_epoch), said.append)
    trained = [line for line in lines(tmp_path / "run") if line["split"] == "train"]
    sequences = sum((20 + n) // 15 for n in range(40))
    assert len(trained) == -(-sequences // 8)
    assert set(sample) == {0}  # what the statistics of the input are computed from is not kept
    assert any(line.startswith("train: streamed from 8 shards, such as train/cuts.000000.jsonl.gz, 2") for line in said)


@dataclass(frozen=True)
class Pair(World):
    """Two processes that are threads."""

    shared: dict[str, Any] = field(default_factory=dict)

    def total(self, v: Tensor) -> Tensor:
        barrier: threading.Barrier = self.shared["barrier"]
        self.shared[f"v{self.rank}"] = v.clone()
        barrier.wait(20)
        v.copy_(self.shared["v0"] + self.shared["v1"])
        barrier.wait(20)
        return v


def test_processes_share_an_epoch_and_one_without_sequences_weighs_nothing() -> None:
    """Of three pieces the first process has two: the second one ends early."""
    utterances = numbered([4, 3, 6, 5, 2, 2, 3, 6])
    pieces = [_group(utterances[:3]), _group(utterances[3:6]), _group(utterances[6:])]
    data = StreamedData(Stream(pieces, encoding_of(PassFrames(1)), None, window=1), 4, 2, [], 1, "")
    shared = {"barrier": threading.Barrier(2)}

    def read(rank: int) -> list[Any]:
        reader = reader_of(data, TrainState(), Pair(rank, 2, rank, shared=shared), CPU)
        found: list[Any] = []
        while not reader.finished:
            found.append((next(reader), reader.position))
        found.append(reader.remarks())
        reader.close()
        return found

    with ThreadPoolExecutor(2) as pool:
        (*first, said), (*second, _) = pool.map(read, range(2))
    assert len(first) == len(second) == 3 and said == ["epoch 1: read 8 utterances, 8 sequences"]
    files: list[str] = []
    for (a, _), (b, _) in zip(first, second, strict=True):
        assert (a.sequences, a.frames) == (b.sequences, b.frames) and len(a.batch.x) == len(b.batch.x)
        real = [item for part in (a, b) if part.weight for item in part.batch.items]
        assert a.sequences == len(real) and a.frames == sum(len(item.x) for item in real)
        assert len(a.batch.x) == max(len(item.x) for item in real)
        places = [place for part in (a, b) if part.weight for place in part.places]
        assert sorted(places) == list(range(a.sequences))
        assert all(torch.isfinite(part.batch.x).all() and part.batch.x.shape[1] == len(part.places) for part in (a, b))
        files += [item.file for item in real]
    assert sorted(files) == sorted(u.file for u in utterances)
    assert {part.weight for part, _ in second} == {0.0, 1.0} and all(part.weight == 1.0 for part, _ in first)
    alone = reader_of(data, TrainState(), ALONE, CPU)
    (shard, frames) = (next(alone), 0)
    frames += shard.frames
    assert shard.weight == 1.0 and shard.places == [0, 1, 2, 3] and not alone.finished
    alone.close()


def _group(utterances: Any) -> Any:
    from corpora.streaming.pieces import GroupPiece

    return GroupPiece(utterances)


WORKER = """
import json, os, sys
from pathlib import Path
import torch
from inference.settings.resolve import resolve
from inference.training import loop, session

torch.set_num_threads(1)
step = loop.train_step
def told(job, state, part):
    if part.weight:
        print("seen", json.dumps([state.epoch, state.step, [[item.file, item.start] for item in part.batch.items]]))
    return step(job, state, part)
loop.train_step = told
for port, run, settings in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    if settings is None:
        session.resume(Path(run), ["train.steps=30"], print)
    else:
        session.start(resolve("vae", overrides=settings), print)
"""


def test_two_processes_see_disjoint_shards_and_go_on_exactly(shards: Path, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    jobs: list[tuple[str, list[str] | None]] = [
        (str(whole), settings(shards, whole)),
        (str(parted), settings(shards, parted, "train.steps=5")),
        (str(parted), None),
    ]
    said, _ = run_together(WORKER, jobs, seconds=200)
    seen: list[list[Any]] = [[json.loads(line[5:]) for line in lines if line.startswith("seen")] for lines in said]
    for epoch in (0, 1):
        shares = [
            {(file, start) for e, step, items in of_rank[: len(of_rank) // 2] if e == epoch for file, start in items}
            for of_rank in seen
        ]
        assert not shares[0] & shares[1]
        assert not {file for file, _ in shares[0]} & {file for file, _ in shares[1]}
        if epoch == 0:
            assert len(shares[0] | shares[1]) == sum((20 + n) // 15 for n in range(40))
    a, b = ([line for line in lines(run) if line["split"] == "train"] for run in (whole, parted))
    assert a == b and len(a) == 30
    told: list[str] = []
    resume(whole, ["train.steps=33"], told.append)
    assert "note: 2 processes shared the stream so far, now 1; the epoch starts again" in told
    assert lines(whole)[-1]["step"] == 33


def test_a_corpus_larger_than_memory_is_streamed_and_that_is_said(corpus: Path, tmp_path: Path) -> None:
    common = [f"data.root={corpus}", "data.corpus=folder", "train.steps=2", "train.epochs=null"]
    base = [item for item in settings(corpus, tmp_path) if not item.startswith(("data.corpus", "data.root", "run="))]
    said: list[str] = []
    start(resolve("vae", overrides=[*base, *common, f"run={tmp_path / 'a'}", "data.memory=1e-6"]), said.append)
    size = sum(path.stat().st_size for path in (corpus / "train").rglob("*.wav")) / 2 / 32 * 33 * 4 / 1e9
    assert f"about {size:.3g} GB, more than data.memory=1e-06, so it is streamed" in "\n".join(said)
    assert any("train: streamed from 1 shards, such as 40 utterances from train/" in line for line in said)
    said.clear()
    start(resolve("vae", overrides=[*base, *common, f"run={tmp_path / 'b'}"]), said.append)
    kept = [f"run={tmp_path / 'c'}", f"data.cache={tmp_path / 'cache'}", "data.memory=1e-6"]
    start(resolve("vae", overrides=[*base, *common, *kept]), said.append)
    assert not any("streamed" in line for line in said)


def test_what_needs_the_training_set_in_memory_is_refused(shards: Path, tmp_path: Path) -> None:
    segments = ["model.segment=15"]
    for model, more, named in (
        ("fhvae", segments, "'fhvae'"),
        ("vae", ["data.segment_starts=random"], "data.segment_starts=random"),
        ("vae", [f"data.cache={tmp_path}"], "data.cache"),
    ):
        with pytest.raises(UserError, match=rf"{named}.*data\.stream=false"):
            start(resolve(model, overrides=settings(shards, tmp_path / "run", *more)), quiet)
    with pytest.raises(UserError, match=" 500 .* 2 "):
        start(resolve("vae", overrides=settings(shards, tmp_path / "run", "data.sequence_frames=500")), quiet)
    one_folder = [*settings(shards, tmp_path / "run"), f"data.root={shards / 'train'}"]
    with pytest.raises(UserError, match=r" 0 (.|\n)*data\.cuts\.train=DIR"):
        start(resolve("vae", overrides=[*one_folder, "data.stream=true"]), quiet)
    said: list[str] = []
    start(resolve("vae", overrides=[*one_folder, "train.steps=2"]), said.append)  # in memory, split by the seed
    assert any("10 % of the speakers to valid" in line for line in said)
    in_memory = settings(shards, tmp_path / "memory", "data.stream=false", "train.steps=2")
    start(resolve("vae", overrides=in_memory), quiet)
