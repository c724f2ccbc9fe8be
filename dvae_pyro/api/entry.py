"""Loading and training runs."""

from __future__ import annotations

from pathlib import Path

from dvae_pyro.allocator import keep_freed_memory
from dvae_pyro.api.hub import PREFIX, from_hub
from dvae_pyro.api.run import Run
from inference.runs import load_run
from inference.settings.overrides import quoted
from inference.settings.resolve import resolve
from inference.training.session import start

__all__ = ["load", "train"]


def load(run: str | Path, *settings: str, checkpoint: str | Path | None = None, device: str = "auto") -> Run:
    """Load a run.

    Args:
        run: the run folder, or "hf:USER/NAME", a shared run on the Hugging Face Hub (extra `[hub]`).
        settings: `key=value` changes of its settings, such as "data.root=/data/speech".
        checkpoint: a file name in the folder, or a path; None takes `best.pt`, else `last.pt`.
        device: where to compute: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".

    Raises:
        UserError: there is no run, its checkpoint is damaged, or a setting is wrong.
    """
    folder = from_hub(run) if isinstance(run, str) and run.startswith(PREFIX) else run
    return Run(load_run(folder, checkpoint=checkpoint, device=device, overrides=settings))


def train(
    model: str,
    *settings: str,
    guide: str | None = None,
    corpus: str | None = None,
    root: str | Path | None = None,
    config: str | Path | None = None,
    steps: int | None = None,
    run: str | Path | None = None,
    device: str | None = None,
    verbose: bool = True,
) -> Run:
    """Train a model as ``python -m inference.svi --model MODEL ... key=value ...`` does, and load the run.

    Args:
        model: the generative model, such as "dkf".
        settings: `key=value` settings, such as "optim.lr=1e-4".
        guide: the inference model; None is that of the model's paper.
        corpus: the corpus (`data.corpus`); None is the built-in one.
        root: its folder (`data.root`).
        config: a YAML file, or the name of a packaged config.
        steps: number of training steps (`train.steps`).
        run: run folder to create; None makes one under ``runs/``.
        device: where to compute.
        verbose: print what the command prints; progress bars are on standard error.

    Raises:
        UserError: a setting is wrong, data cannot be read, or the loss is not finite.
    """
    named = {"data.corpus": corpus, "data.root": root, "run": run, "device": device}
    overrides = [f"{key}={quoted(str(value))}" for key, value in named.items() if value is not None]
    overrides += [] if steps is None else [f"train.steps={steps}"]
    keep_freed_memory()
    resolved = resolve(model, guide, config, [*overrides, *settings])
    path = start(resolved, print if verbose else lambda line: None)
    return load(path, device=resolved.device)
