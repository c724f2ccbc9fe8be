"""The head of every report: each key from the setting that it is named after, what was asked for before the run's."""

from __future__ import annotations

from pathlib import Path

from evaluation.reporting.command_line import Request
from evaluation.reporting.provenance import provenance
from inference.runs import Run, create
from inference.settings.resolve import resolve

SETTINGS = ["model.bins=65", "seed=3", "data.seed=4", "data.root=speech", "data.corpus=folder", "dtype=float64"]


def made(checkpoint: Path) -> Run:
    settings = resolve("dkf", "past-markov", overrides=[*SETTINGS, "evaluation.latents=sample", "data.hop=64"])
    model, guide = create(settings)
    return Run(Path("runs/a"), settings, model, guide, checkpoint, {"step": 7})


def test_every_key_is_what_its_name_says() -> None:
    run = made(Path("runs/a/best.pt"))
    found = provenance("likelihood", run, Request(Path("runs/a"), split="valid", overrides=("data.seed=4",)))
    parameters = {id(p): p.numel() for part in (run.model, run.guide) for p in part.parameters()}
    assert found == {
        "evaluation": "likelihood",
        "run": "runs/a",
        "corpus": "folder",
        "root": "speech",
        "split": "valid",
        "mode": "gt",
        "latents": "sample",
        "checkpoint": "best.pt",
        "step": 7,
        "seed": 3,
        "data_seed": 4,
        "dtype": "float64",
        "model": "dkf",
        "guide": "past-markov",
        "parameters": sum(parameters.values()),
        "autoregressive": False,
        "overrides": ["data.seed=4"],
    }


def test_what_was_asked_for_goes_before_the_settings() -> None:
    found = provenance("x", made(Path("elsewhere/b.pt")), Request(Path("runs/a"), mode="gen", latents="mean"))
    assert (found["mode"], found["latents"]) == ("gen", "mean")
    assert found["checkpoint"] == str(Path("elsewhere/b.pt")), "one of another folder is named in full"
