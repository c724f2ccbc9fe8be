"""The kernel that takes a guide's chain through all frames (`guides.core.fused_loop`) against the loop over frames.

The difference is the largest relative one of the loss and the gradient of each weight, of the same noise; milliseconds
are those of loss and gradients, eager and recorded, with either; on a CPU, with the loop alone.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from benchmarks.gpu_suite.parts.common import Work, milliseconds, settings_of

FORMS = {"looped": "0", "fused": "1"}
"""Value of DVAE_FUSED_LOOP for each form."""


def main() -> None:
    """Record whether the kernel is used, the difference and the times."""
    work = Work()
    import pyro
    import torch

    from benchmarks.timing import power_spectra
    from guides.core import fused_loop
    from inference.objectives.elbo import Objective
    from inference.runs import create
    from inference.training.recorded_step import RecordedStep, cuda_graphs, loss_and_gradients, run_again

    device = work.device
    model, guide = create(settings_of(work, f"device={work.device_name}"))
    data = power_spectra(work.frames, work.sequences, work.bins)
    model.fit_input(data.unbind(1))
    x, lengths, real = data.to(device), torch.full((work.sequences,), work.frames), work.frames * work.sequences
    objective = Objective(model, guide)
    results: dict[str, dict[str, torch.Tensor]] = {}

    def compute(form: str) -> dict[str, Any]:
        os.environ["DVAE_FUSED_LOOP"] = FORMS[form]
        objective.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        bound = loss_and_gradients(objective, x, lengths, real)
        gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
        found = {"loss": bound.loss.detach() / real, **gradients}
        results[form] = {name: v.double().cpu().clone() for name, v in found.items()}
        return {}

    def difference() -> dict[str, Any]:
        largest = max(float(v.norm()) for v in results["looped"].values())
        found = {
            name: float((results["fused"][name] - v).norm()) / max(float(v.norm()), 1e-6 * largest)
            for name, v in results["looped"].items()
        }
        return {"difference": max(found.values()), "difference_of": max(found, key=lambda name: found[name])}

    def timed(form: str, *, recorded: bool) -> dict[str, Any]:
        os.environ["DVAE_FUSED_LOOP"] = FORMS[form]
        step: Any = RecordedStep(objective, cuda_graphs(device) or run_again) if recorded else loss_and_gradients
        args = (x, lengths, real) if recorded else (objective, x, lengths, real)
        spent = milliseconds(lambda: step(*args), device)
        return {f"recorded_{form}_ms" if recorded else f"{form}_ms": spent}

    used = fused_loop.applies(torch.empty(0, device=device), [])
    work.record(used=used)
    forms = [*FORMS] if used else ["looped"]
    with pyro.validation_enabled(False):
        for form in forms:
            work.attempt(form, partial(compute, form))
        if used:
            work.attempt("difference", difference)
        for recorded in (False, True):
            for form in forms:
                work.attempt(f"{form}_ms", partial(timed, form, recorded=recorded))
    if used and not fused_loop.applies(torch.empty(0, device=device), []):
        work.record(used="failed, see the log")


if __name__ == "__main__":
    main()
