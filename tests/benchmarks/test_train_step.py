"""The benchmark of a training step: what it reports, and that it times what it says."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.timing import interleaved
from benchmarks.train_step import FORMS, main

SMALL = ["--frames", "4", "--sequences", "3", "--bins", "9", "--steps", "1", "--repeats", "2"]
AGREED = "model frames sequences bins threads parameters parallel_s stepwise_s ratio frames_per_second".split()
KEYS = [*AGREED, "operations_per_second", "floor_s", "over_floor"]


def test_report_has_the_agreed_keys_and_agrees_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "step.json"
    assert main(["--model", "dkf", *SMALL, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert list(report) == KEYS
    assert (report["model"], report["frames"], report["sequences"], report["bins"]) == ("dkf", 4, 3, 9)
    assert report["ratio"] == pytest.approx(report["parallel_s"] / report["stepwise_s"])
    work = 6 * report["parameters"] * 4 * 3
    assert report["floor_s"] == pytest.approx(work / report["operations_per_second"])
    assert report["over_floor"] == pytest.approx(report["parallel_s"] / report["floor_s"])
    assert report["frames_per_second"] == pytest.approx(4 * 3 / report["parallel_s"])
    assert f"{report['parameters']} parameters" in capsys.readouterr().out


def test_settings_and_guide_reach_the_model(tmp_path: Path) -> None:
    sizes = {}
    for name, extra in {"paper": [], "wide": ["model.z_dim=32"], "other": ["--guide", "past-markov"]}.items():
        file = tmp_path / f"{name}.json"
        assert main(["--model", "dkf", *SMALL, "--json", str(file), *extra]) == 0
        sizes[name] = json.loads(file.read_text())["parameters"]
    assert len(set(sizes.values())) == 3


PEER = """
import torch
asked = []
def peer(name, x):
    asked.append((name, tuple(x.shape)))
    net = torch.nn.Linear(x.shape[-1], 1)
    def loss():
        asked.append(net.weight.detach().clone())
        return net(x).square().mean()
    return net, loss
"""


def test_a_peer_takes_turns_and_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer_of_the_test.py").write_text(PEER)
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "dkf", *SMALL, "--json", "step.json", "--peer", "peer_of_the_test:peer"]) == 0
    report = json.loads(Path("step.json").read_text())
    assert list(report) == [*KEYS, "peer_s", "over_peer"]
    assert report["over_peer"] == pytest.approx(report["parallel_s"] / report["peer_s"])
    first, *weights = sys.modules["peer_of_the_test"].asked
    assert first == ("dkf", (4, 3, 9)) and len(weights) == 2 * (2 + 1)  # runs, steps with those that warm up
    assert not any(torch.equal(one, other) for one, other in pairwise(weights))


def test_forms_take_turns_and_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that steps move: parallel takes 1 s and stepwise 2 s, and 100 s in the first two turns."""
    now, calls = 0.0, []

    def step(how: str) -> None:
        nonlocal now
        calls.append(how)
        now += 100.0 if len(calls) <= 4 else {"auto": 1.0, "stepwise": 2.0}[how]

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert interleaved(step, 3, FORMS) == {"parallel": 1.0, "stepwise": 2.0}
    assert calls == ["auto", "stepwise"] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dfk"], "Did you mean 'dkf'"),
        (["--model", "dkf", "--frames", "0"], "--frames 0"),
        (["--model", "dkf", "model.z_dimm=3"], "model.z_dimm"),
        (["--model", "dkf", "--bins", "9", "model.bins=17"], "contradicts"),
        (["--model", "dkf", *SMALL, "train.cuda_graph=true"], "benchmarks.gpu"),
        (["--model", "dkf", *SMALL, "--peer", "no_such_module:f"], "--peer no_such_module:f"),
        (["--model", "dkf", *SMALL, "--peer", "json:no_such_function"], "no_such_function"),
        (["--model", "dkf", *SMALL, "--json", "/dev/null/all.json"], "Cannot write"),
    ],
)
def test_mistakes_give_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
