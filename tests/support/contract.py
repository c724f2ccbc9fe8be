"""The clauses of the contract (`tests.models.test_contract`) for models that it does not list."""

from __future__ import annotations

import inspect

from tests.models import test_contract

__all__ = ["CLAUSES", "keep"]

CLAUSES = [name for name in vars(test_contract) if name.startswith("test_")]


def keep(clause: str, model_name: str, guide_name: str) -> None:
    """Run a clause for a model and a guide; a clause of models alone, or of neither, takes only what it varies, and one
    of single programs is run for the model and for the guide.
    """
    run = getattr(test_contract, clause)
    programs = (None, guide_name) if run.__annotations__.get("guide_name") == "str | None" else (guide_name,)
    for program in programs:
        given = {"model_name": model_name, "guide_name": program}
        run(**{name: given[name] for name in inspect.signature(run).parameters})
