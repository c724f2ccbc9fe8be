"""The verdict at the end of a training, on made-up validations; the line of an epoch, in a file and in a terminal."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from inference.settings.resolve import resolve
from inference.svi import main
from inference.training.monitor.convergence import convergence, unused_latents, verdict
from inference.training.monitor.logs import ProgressBar


def curve(kind: str, count: int = 40) -> list[float]:
    """Validation bounds that settle, still rise, or rise and fall, from about -100 to 500 nats per frame."""
    settled = [500.0 - 600.0 * math.exp(-0.3 * n) for n in range(count)]
    rising = [500.0 - 600.0 * math.exp(-0.04 * n) for n in range(count)]
    fallen = [bound - max(0.0, 3.0 * (n - 20)) for n, bound in enumerate(settled)]
    return {"settled": settled, "rising": rising, "fallen": fallen, "never": [-n for n in map(float, range(count))]}[
        kind
    ]


def said(bounds: list[float], key: str = "elbo", **kl: float) -> list[str]:
    lines = [{"epoch": n + 1, key: bound, **kl} for n, bound in enumerate(bounds)]
    return verdict(lines, key, {"z": 16.0, "w": 0.1}, resume="RESUME")


@pytest.mark.parametrize(
    ("kind", "begins"),
    [("settled", "converged"), ("rising", "not converged"), ("fallen", "the bound fell"), ("never", "the bound fell")],
)
def test_made_up_trainings_are_told_apart(kind: str, begins: str) -> None:
    (line,) = said(curve(kind))
    assert line.startswith(begins)
    assert ("RESUME" in line) == (kind == "rising")


def test_noise_of_the_last_epochs_is_not_taken_for_a_rise_or_a_fall() -> None:
    settled = curve("settled")
    assert said([*settled[:-1], settled[-1] + 2.0])[0].startswith("converged"), "0.3 % of the rise"
    assert said([*settled[:-1], settled[-1] - 20.0])[0].startswith("converged"), "3 % of the rise"
    assert said([*settled[:-1], settled[-1] + 20.0])[0].startswith("not converged")
    assert said([*settled[:-1], settled[-1] - 40.0])[0].startswith("the bound fell")


def test_few_validations_tell_nothing_and_another_criterion_is_heeded() -> None:
    assert convergence([1.0, 2.0, 3.0]) is None
    assert "validations: 3, too few" in said([1.0, 2.0, 3.0])[0]
    assert said(curve("rising"), "iwae")[0].startswith("not converged")


def test_latents_that_are_hardly_used_are_named_by_their_nats_per_dimension() -> None:
    lines = said(curve("settled"), kl_z=0.08, kl_w=0.01)
    assert len(lines) == 2 and lines[1].startswith("kl_z is nearly zero: 0.005 nats per dimension")
    assert said(curve("settled"), kl_z=0.2, kl_w=0.0005)[1].startswith("kl_w is nearly zero")
    assert unused_latents({"kl_z": 0.16, "kl_w": 0.001}, {"z": 16.0, "w": 0.1, "v": 2.0}) == {}


def test_a_training_prints_lines_of_epochs_and_ends_with_the_verdict(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*tiny, "train.epochs=4", "train.steps=null", "train.patience=30"]
    assert main(["--model", "vae", "--run", str(tmp_path / "run"), *settings]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert [line.split(",")[0] for line in lines] == [f"epoch {n}" for n in (1, 2, 3, 4)]
    assert all(word in line for line in lines for word in ("bound", "reconstruction", "kl_z", "patience", "of 30"))
    assert any(line.startswith(("converged", "not converged", "the bound fell")) for line in out.splitlines())
    assert resolve("vae").train.patience is not None, "so patience is shown by default"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "own_lines"), [(io.StringIO(), 2), (Terminal(), 0)])
def test_the_line_of_an_epoch_is_rewritten_in_a_terminal(
    stream: Any, own_lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar(10, 0) as bar:
        bar.epoch("epoch 1: first")
        bar.advance("loss 1")
        bar.epoch("epoch 2: second")
        text = stream.getvalue()
    lines = text.replace("\r", "\n").split("\n")
    assert (
        sum(line.strip() in ("epoch 1: first", "epoch 2: second") and f"{line}\n" in text for line in lines)
        == own_lines
    )
    assert "epoch 2: second" in text and "training" in text
