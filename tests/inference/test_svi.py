"""The command line in processes of its own: killed, interrupted, misused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from inference.checkpoints.files import load_checkpoint
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Objective
from inference.runs import load_run
from inference.svi import main

ROOT = Path(__file__).resolve().parents[2]


def launch(*arguments: str) -> subprocess.Popen[str]:
    """Start `python -m inference.svi` on one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "inference.svi", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames_per_second", "data_wait")} for line in found]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait while the process runs; a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.002)


def logged(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, tiny: list[str]) -> None:
    settings = [
        *tiny,
        "train.steps=160",
        "train.checkpoint_every=20",
        "train.batch_size=2",
        "train.patience=null",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["--model", "dkf", "--run", str(whole), *settings]) == 0
    process = launch("--model", "dkf", "--run", str(killed), *settings)
    wait_until(lambda: logged(killed) > 70, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    at = load_checkpoint(killed / "last.pt")
    assert 0 < at["step"] < 160 and at["step"] % 20 == 0
    assert (killed / "metrics.jsonl").stat().st_size > at["metrics_bytes"], "killed between two checkpoints"
    assert main(["--resume", str(killed)]) == 0
    assert lines(killed) == lines(whole)
    for name in ("last.pt", "best.pt"):
        a, b = load_checkpoint(whole / name), load_checkpoint(killed / name)
        for part in ("model", "guide"):
            assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, tiny: list[str], number: signal.Signals) -> None:
    run = tmp_path / "run"
    process = launch("--model", "vae", "--run", str(run), *tiny, "train.steps=100000", "train.patience=null")
    wait_until(lambda: logged(run) >= 20, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert f"Resume with: python -m inference.svi --resume {run}" in errors
    step = load_checkpoint(run / "last.pt")["step"]
    assert step >= 15 and f"Stopped at step {step}" in errors
    trained = [line["step"] for line in lines(run) if line["split"] == "train"]
    assert trained == list(range(1, step + 1))
    assert main(["--resume", str(run), f"train.steps={step + 3}"]) == 0
    trained = [line["step"] for line in lines(run) if line["split"] == "train"]
    assert trained == list(range(1, step + 4))


def test_a_users_mistake_exits_with_one_message(tmp_path: Path) -> None:
    process = launch("--model", "dfk", "--run", str(tmp_path / "run"))
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert errors.startswith("error: unknown model 'dfk'. Did you mean 'dkf'?") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vae", "--guide", "owm"], "unknown guide 'owm'"),
        (["--model", "vae", "--corpus", "foldr"], "Did you mean 'folder'?"),
        (["--model", "vae", "--corpus", "folder", "--root", "/nowhere"], "/nowhere"),
        (["--model", "vae", "--config", "benchmark/dfk"], "neither a file nor a packaged config"),
        (["--model", "vae", "trains.steps=3"], "Did you mean 'train.steps'?"),
        (["--model", "vae", "--device", "cuda:63"], "device 'cuda:63' is not available"),
        (["--resume", "/nowhere"], "No run folder at /nowhere"),
        ([], "Add --model NAME"),
    ],
)
def test_a_mistake_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    resumes = "--resume" in arguments
    assert main([*arguments, *([] if resumes else ["--run", str(tmp_path / "run")])]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert not (tmp_path / "run").exists()


def test_resume_takes_no_other_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--resume", "runs/x", "--model", "vae"])
    assert stop.value.code == 2
    assert "omit --model" in capsys.readouterr().err


def test_print_config_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "vae", "--print-config", "optim.lr=0.25", "--root", "some/where"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "row.yaml").write_text(text)
    assert main(["--config", str(tmp_path / "row.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == text
    assert "lr: 0.25" in text and "root: some/where" in text


def test_the_end_says_what_comes_next(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert main(["--model", "vae", "--run", run, *tiny, "train.steps=2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("model vae, guide paper: ") and out[0].endswith(" parameters")
    assert out[-1] == f"next: python -m evaluation.resynthesis {run}"


@pytest.mark.cuda
def test_a_run_trains_and_resumes_on_the_gpu(tmp_path: Path, tiny: list[str]) -> None:
    run = tmp_path / "run"
    assert main(["--model", "dkf", "--run", str(run), "--device", "cuda", *tiny, "train.steps=5"]) == 0
    assert main(["--resume", str(run), "train.steps=9"]) == 0
    trained = [line["step"] for line in lines(run) if line["split"] == "train"]
    assert trained == list(range(1, 10))
    x = 10 ** torch.randn(30, 3, 17)
    bounds = []
    for device in ("cpu", "cuda"):
        loaded = load_run(run, device=device)
        with torch.no_grad(), mean_latents():
            bound = Objective(loaded.model, loaded.guide)(x.to(device), torch.tensor([30, 20, 10]))
        bounds.append(bound.terms.elbo.cpu())
    torch.testing.assert_close(bounds[0], bounds[1], rtol=1e-4, atol=0.0)


def test_flags_are_taken_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """Not as YAML, to which 010 is eight and 1_000 a thousand."""
    assert main(["--model", "vae", "--corpus", "folder", "--root", "010", "--run", "1_000", "--print-config"]) == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (printed.data.root, printed.run) == ("010", "1_000")
