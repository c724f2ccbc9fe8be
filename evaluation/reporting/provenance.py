"""Provenance of the figures of a report: the run, its weights, and the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from corpora.types import Corpus
    from evaluation.reporting.command_line import Request
    from inference.runs import Run

__all__ = ["autoregressive", "caption", "data_head", "provenance"]


def provenance(evaluation: str, run: Run, request: Request) -> dict[str, Any]:
    """The first keys of a report.

    Args:
        evaluation: its name.
        run: the run.
        request: the command line.
    """
    settings = run.settings
    inside = run.checkpoint_path.parent == run.path
    return {
        "evaluation": evaluation,
        "run": str(run.path),
        "corpus": settings.data.corpus,
        "root": settings.data.root,
        "split": request.split,
        "mode": request.mode or settings.evaluation.mode,
        "latents": request.latents or settings.evaluation.latents,
        "checkpoint": run.checkpoint_path.name if inside else str(run.checkpoint_path),
        "step": run.state["step"],
        "seed": settings.seed,
        "data_seed": settings.data.seed,
        "dtype": settings.dtype,
        "model": settings.model.name,
        "guide": settings.guide.name,
        "parameters": _parameters(run),
        "autoregressive": autoregressive(run),
        "overrides": list(request.overrides),
    }


def caption(run: Run) -> str:
    """The name of a run as titles of pictures have it: folder, model, guide and step."""
    settings = run.settings
    return f"{run.path.name} ({settings.model.name}, guide {settings.guide.name}, step {run.state['step']})"


def data_head(evaluation: str, run: Path, corpus: Corpus, split: str) -> dict[str, Any]:
    """The first keys of a report that is of the data of a run more than of its weights."""
    of_data = {"corpus": corpus.name, "root": corpus.root or None, "split": split}
    return {"evaluation": evaluation, "run": str(run), **of_data}


def _parameters(run: Run) -> int:
    """Number of parameters of model and guide; shared parameters count once."""
    return sum({id(p): p.numel() for part in (run.model, run.guide) for p in part.parameters()}.values())


def autoregressive(run: Run) -> bool:
    """Whether any conditional of the model depends on past data, so that modes gt and gen differ."""
    parents = run.model.parents(run.settings.model)
    return any(name.startswith("x") for conditional in parents.values() for name in conditional)
