"""Recurrent networks by cell, width and precision: times, dtypes, and gradients with frozen weights."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_suite.parts.common import Work, milliseconds, recorded

WIDTHS = {"cpu": (8, 16), "cuda": (32, 128, 256, 512)}


def main() -> None:
    """Record a line for each combination."""
    work = Work()
    import torch

    from models.nn.layers import Recurrent, recurrence

    device = work.device
    cases = [("lstm", width) for width in WIDTHS[device.type]] + [("rnn", WIDTHS[device.type][-1])]
    for cell, width in cases:
        for precision in ("float32", "float64", "bf16"):
            dtype = torch.float64 if precision == "float64" else torch.float32
            net = Recurrent(width, width, cell=cell).to(device=device, dtype=dtype).net
            u = torch.randn(work.frames, work.sequences, width, device=device, dtype=dtype, requires_grad=True)
            tensors = [u, *net.parameters()]

            def outputs(*, ours: bool, net: Any = net, u: Any = u, half: bool = precision == "bf16") -> Any:
                with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                    return (recurrence(net, u) if ours else net(u))[0]

            def step(tensors: Any = tensors, outputs: Any = outputs) -> None:
                torch.autograd.grad(outputs(ours=True).float().square().sum(), tensors)

            def figures(outputs: Any = outputs, step: Any = step, net: Any = net, u: Any = u) -> dict[str, Any]:
                found: dict[str, Any] = {"eager_ms": milliseconds(step, device)}
                found |= {"dtype": str(outputs(ours=True).dtype), "dtype_of_module": str(outputs(ours=False).dtype)}
                if device.type == "cuda":
                    found["recorded_ms"] = milliseconds(recorded(step), device)
                net.eval()
                for name, ours in (("frozen", True), ("frozen_module", False)):
                    try:
                        torch.autograd.grad(outputs(ours=ours).float().sum(), u)
                        found[name] = "has gradients"
                    except RuntimeError as error:
                        found[name] = str(error).splitlines()[0]
                return found

            case = {"cell": cell, "width": width, "precision": precision}
            work.attempt("rnn", lambda case=case, figures=figures: {**case, **figures()})  # type: ignore[misc]  # a lambda's defaults


if __name__ == "__main__":
    main()
