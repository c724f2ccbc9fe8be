"""Training a guide to the model of another run: the model stays as it is, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference import svi
from inference.checkpoints.files import load_checkpoint
from inference.settings.resolve import resolve


def trained(run: Path, tiny: list[str], *arguments: str) -> Path:
    assert svi.main(["--run", str(run), *tiny, *arguments]) == 0
    return run


@pytest.mark.parametrize(("model", "guide"), [("dkf", "all-meanfield"), ("srnn", "paper")])
def test_only_the_guide_changes(model: str, guide: str, tmp_path: Path, tiny: list[str]) -> None:
    source = trained(tmp_path / "source", tiny, "--model", model, "train.steps=3")
    steps = [
        "--model",
        model,
        "--guide",
        guide,
        f"train.model_from={source}",
        "data.sequence_frames=60",
    ]  # other statistics
    one = trained(tmp_path / "one", tiny, *steps, "train.steps=1", "seed=5")
    more = trained(tmp_path / "more", tiny, *steps, "train.steps=4", "seed=5")
    assert svi.main(["--resume", str(one), "train.steps=6"]) == 0
    original = load_checkpoint(source / "best.pt")
    fitted = [load_checkpoint(run / "last.pt") for run in (one, more)]
    for state in fitted:
        assert all(torch.equal(state["model"][name], value) for name, value in original["model"].items())
    shared = {k for k, v in fitted[0]["guide"].items() if any(v.equal(w) for w in original["model"].values())}
    moved = {k for k, v in fitted[0]["guide"].items() if not v.equal(fitted[1]["guide"][k])}
    assert moved and moved.isdisjoint(shared) and moved | shared == set(fitted[0]["guide"])


def test_another_model_is_refused_with_what_to_give(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = trained(tmp_path / "source", tiny, "--model", "dkf", "train.steps=1")
    for arguments, hint in (
        (["--model", "dkf", "model.z_x=[7]"], "Add model.z_x=[32, 64, 128, 256]"),
        (["--model", "vae"], "Give --model dkf"),
        (["--model", "dkf", "data.hop=32"], "Add data.hop=16"),
    ):
        given = [*tiny, *arguments, f"train.model_from={source}", "--run", str(tmp_path / "other")]
        assert svi.main(given) == 2
        assert hint in capsys.readouterr().err
    assert svi.main(["--resume", str(source), "train.steps=9", f"train.model_from={source}"]) == 2
    assert "cannot change" in capsys.readouterr().err


def test_a_fixed_model_needs_no_warm_up_of_the_kl() -> None:
    assert resolve("dkf").train.kl_warmup_steps is None and resolve("dkf").train.kl_warmup_epochs == 10
    assert resolve("dkf", overrides=["train.model_from=runs/dkf"]).train.kl_warmup_steps == 0
    both = ["train.model_from=runs/dkf", "train.kl_warmup_steps=7"]
    assert resolve("dkf", overrides=both).train.kl_warmup_steps == 7
