"""Milliseconds of a training step: frame by frame, all frames at once, recorded, and recorded in bfloat16.

A step is loss, gradients and Adam. The floor is a lower bound on its time: the larger of arithmetic (6 operations per
parameter and frame, at the measured rate of a large matrix product in float32) and memory traffic (the data read twice,
and every weight, its gradient and its two moments read and written once, at the measured rate of a large copy). It
neglects the sequential dependence of frames and the activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu_suite.parts.common import Work, milliseconds, settings_of

PRODUCT = {"cpu": 512, "cuda": 8192}
COPY = {"cpu": 2**24, "cuda": 2**30}


def main() -> None:
    """Time each form and record the result."""
    work = Work()
    import pyro
    import torch

    from benchmarks.timing import power_spectra
    from inference.objectives.elbo import Objective
    from inference.runs import create
    from inference.training.optimisers import build_optimiser
    from inference.training.recorded_step import RecordedStep, cuda_graphs, loss_and_gradients, run_again

    settings = settings_of(work, f"device={work.device_name}")
    device = work.device
    model, guide = create(settings)
    data = power_spectra(work.frames, work.sequences, work.bins)
    model.fit_input(data.unbind(1))
    x, lengths, real = data.to(device), torch.full((work.sequences,), work.frames), work.frames * work.sequences
    plain, half = Objective(model, guide), Objective(model, guide, bf16=True)
    optimizer = build_optimiser(settings.optim, plain)
    parameters = sum(p.numel() for p in plain.parameters())
    found: dict[str, float] = {}

    def timed(name: str, compute: Callable[[], Any], **more: int) -> None:
        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            compute()
            optimizer.step()

        def figures() -> dict[str, Any]:
            found[name] = milliseconds(step, device, **more)
            return {f"{name}_ms": found[name]}

        work.attempt(f"{name}_ms", figures)

    def floor() -> dict[str, Any]:
        size, room = PRODUCT[device.type], COPY[device.type] // 4
        a, out = torch.rand(2, size, size, device=device)
        there, back = torch.empty(room, device=device), torch.zeros(room, device=device)
        product = milliseconds(lambda: torch.mm(a, a, out=out), device, turns=5)
        copied = milliseconds(lambda: there.copy_(back), device, turns=5)
        arithmetic = 6 * parameters * real / (2 * size**3) * product
        traffic = 4 * (2 * x.numel() + 8 * parameters) / (8 * room) * copied
        found["floor"] = max(arithmetic, traffic)
        return {"arithmetic_ms": arithmetic, "traffic_ms": traffic, "floor_ms": found["floor"]}

    with pyro.validation_enabled(False):
        work.record(parameters=parameters, frames=work.frames, sequences=work.sequences, bins=work.bins)
        work.attempt("floor_ms", floor)
        timed("eager", lambda: loss_and_gradients(plain, x, lengths, real))
        recorded_step, recorded_half = (RecordedStep(one, cuda_graphs(device) or run_again) for one in (plain, half))
        timed("recorded", lambda: recorded_step(x, lengths, real))
        timed("bf16", lambda: recorded_half(x, lengths, real))
        timed("stepwise", lambda: loss_and_gradients(plain, x, lengths, real, how="stepwise"), warmup=1, turns=3)
    ratios = {"over_floor": ("recorded", "floor"), "times_stepwise": ("stepwise", "recorded")}
    work.record(**{k: found[a] / found[b] for k, (a, b) in ratios.items() if a in found and b in found})
    if device.type == "cuda":
        work.record(peak_mib=torch.cuda.max_memory_allocated(device) / 2**20)


if __name__ == "__main__":
    main()
