"""The time of each kernel in a recorded training step."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_suite.parts.common import Work, settings_of

MOST = 30
"""Number of kernels that are recorded by name, by decreasing time."""


def main() -> None:
    """Record the sum over all kernels, and a line for each of the slowest."""
    work = Work()
    import pyro
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.timing import power_spectra
    from inference.objectives.elbo import Objective
    from inference.runs import create
    from inference.training.recorded_step import RecordedStep, cuda_graphs, run_again

    device = work.device
    model, guide = create(settings_of(work, f"device={work.device_name}"))
    data = power_spectra(work.frames, work.sequences, work.bins)
    model.fit_input(data.unbind(1))
    x, lengths, real = data.to(device), torch.full((work.sequences,), work.frames), work.frames * work.sequences
    step = RecordedStep(Objective(model, guide), cuda_graphs(device) or run_again)
    cuda = device.type == "cuda"
    with pyro.validation_enabled(False):
        step(x, lengths, real)
        if cuda:
            torch.cuda.synchronize(device)
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiled:
            step(x, lengths, real)
            if cuda:
                torch.cuda.synchronize(device)
    rows: list[tuple[float, int, str]] = []
    for event in profiled.key_averages():
        each: Any = event
        spent = each.self_device_time_total if cuda else each.self_cpu_time_total
        if spent > 0:
            rows.append((spent, each.count, each.key[:120]))
    rows.sort(reverse=True)
    work.record(kernels=sum(count for _, count, _ in rows), total_us=sum(spent for spent, _, _ in rows))
    for spent, count, name in rows[:MOST]:
        work.record(kernel=name, count=count, us=spent)


if __name__ == "__main__":
    main()
