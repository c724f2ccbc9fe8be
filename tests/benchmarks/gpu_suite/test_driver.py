"""Parts that die, hang or wait in turn: what the others do, and what is written of all."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_suite import driver as module
from benchmarks.gpu_suite.driver import Driver
from benchmarks.gpu_suite.results import read
from benchmarks.gpu_suite.stages import PACKING, Part, Stage

WRITE = """
import json, os, signal, sys, time
def write(**line):
    with open(os.environ["GPU_SUITE_RESULTS"], "a") as stream:
        stream.write(json.dumps({"part": os.environ["GPU_SUITE_PART"], **line}) + "\\n")
"""


def part(name: str, code: str, *arguments: str, **more: Any) -> Part:
    return Part(name, [sys.executable, "-c", WRITE + code, *arguments], **more)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "GRACE", 5.0)

    def run(*stages: Stage, seconds: float = 30.0) -> dict[str, dict[str, Any]]:
        out = tmp_path / "out"
        out.mkdir()
        Driver(out, tmp_path / "scratch", seconds + PACKING, cores=2).run(stages)
        found: dict[str, dict[str, Any]] = {}
        for line in read(out / "results.jsonl"):
            found.setdefault(line["part"], {}).update(line)
        return found

    return run


def test_a_part_that_dies_takes_nothing_along(run: Any) -> None:
    parts = [
        part("good/one", "write(figure=1.0)"),
        part("bad/raises", "write(figure=2.0); raise ValueError('no such thing')"),
        part("bad/killed", "write(figure=3.0); os.kill(os.getpid(), signal.SIGSEGV)"),
        part("bad/half", "open(os.environ['GPU_SUITE_RESULTS'], 'a').write('{\"part\": \"bad/half\", \"fi')"),
        Part("bad/missing", ["/no/such/program"]),
        part("good/two", "write(figure=4.0)"),
    ]
    found = run(Stage("all", 0, 1, None, parts, at_once=2))
    assert [found[name]["status"] for name in ("good/one", "good/two")] == ["done", "done"]
    assert [found[name]["figure"] for name in ("good/one", "bad/raises", "bad/killed", "good/two")] == [1, 2, 3, 4]
    assert found["bad/raises"]["end"].strip().endswith("ValueError: no such thing")
    assert found["bad/killed"]["status"] == "failed" and found["bad/killed"]["code"] == -11
    assert found["bad/missing"]["status"] == "failed" and "no/such/program" in found["bad/missing"]["end"]
    assert "fi" not in found["bad/half"]


def test_a_part_that_hangs_is_ended_and_what_it_found_stays(run: Any) -> None:
    hanging = part("hangs", "write(figure=1.0); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    started = time.monotonic()
    found = run(Stage("first", 0, 1, 2.0, [hanging]), Stage("second", 1, 1, None, [part("next", "write(figure=2.0)")]))
    assert time.monotonic() - started < 20
    assert found["hangs"]["status"] == "out of time" and found["hangs"]["figure"] == 1
    assert found["next"]["status"] == "done"


def test_what_does_not_fit_is_left_out_by_rank(run: Any) -> None:
    code = "write(figure=1.0)"
    stages = [Stage(str(rank), rank, 12, 2, [part(f"rank/{rank}", code)]) for rank in (2, 0, 1)]
    found = run(*stages, seconds=25.0)
    assert {name: line["status"] for name, line in found.items()} == {
        "rank/0": "done",
        "rank/1": "done",
        "rank/2": "left out",
    }


def test_gated_parts_use_the_device_one_after_another_and_start_before(run: Any) -> None:
    code = """
write(up=time.time())
sys.stdin.readline()
write(begin=time.time())
time.sleep(1.5)
write(end_of_use=time.time())
"""
    found = run(Stage("gated", 0, 1, None, [part(f"gated/{n}", code) for n in range(3)], gated=True))
    for one, other in ((found["gated/0"], found["gated/1"]), (found["gated/1"], found["gated/2"])):
        assert other["up"] < one["end_of_use"] < other["begin"]


def test_a_training_that_dies_early_is_tried_again_without_and_one_that_is_stopped_saves(
    run: Any, tmp_path: Path
) -> None:
    code = """
import pathlib
run = pathlib.Path(sys.argv[1])
run.mkdir(parents=True)
if "record=true" in sys.argv:
    raise RuntimeError("no graphs here")
def stop(*_):
    (run / "metrics.jsonl").write_text(json.dumps({"split": "valid", "step": 7, "elbo": -3.0}))
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
time.sleep(60)
"""
    folder = tmp_path / "runs" / "vae"
    training = part("training/vae", code, str(folder), "record=true", without=["record=true"], run=folder, ok=(0, 130))
    found = run(Stage("training", 0, 1, 9.0, [training]))["training/vae"]
    assert (found["status"], found["code"], found["best"], found["recorded"]) == ("done", 130, -3.0, False)
    assert folder.with_name("vae.first").is_dir()


def test_a_stage_in_the_background_is_waited_for_by_what_needs_it(run: Any) -> None:
    stages = [
        Stage("features", 0, 0, None, [part("features", "time.sleep(1); write(ready=time.time())")], background=True),
        Stage("checks", 0, 1, None, [part("checks", "write(begin=time.time())")]),
        Stage("training", 0, 1, None, [part("training", "write(begin=time.time())")], needs="features"),
    ]
    found = run(*stages)
    assert found["checks"]["begin"] < found["features"]["ready"] < found["training"]["begin"]
    assert found["features"]["status"] == "done"
