"""Limits of the device: time per kernel, rates of matrix products and of copies."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_suite.parts.common import Work, milliseconds, recorded

KERNELS = 1000
PRODUCT = {"cpu": 256, "cuda": 8192}
"""Rows and columns of the multiplied matrices."""
COPY = {"cpu": 2**20, "cuda": 2**30}
"""Bytes per copy."""


def main() -> None:
    """Record microseconds per kernel, and operations and bytes per second."""
    work = Work()
    import torch

    device = work.device
    size, room = PRODUCT[device.type], COPY[device.type]
    v = torch.zeros(32, 64, device=device)

    def kernels() -> None:
        for _ in range(KERNELS):
            v.add_(1.0)

    def product(dtype: torch.dtype, *, tf32: bool) -> dict[str, Any]:
        a, out = torch.rand(2, size, size, device=device, dtype=dtype)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        spent = milliseconds(lambda: torch.mm(a, a, out=out), device, turns=5)
        torch.backends.cuda.matmul.allow_tf32 = False
        name = "tf32" if tf32 else str(dtype).split(".")[1]
        return {f"{name}_operations_per_second": 2 * size**3 / (1e-3 * spent)}

    def copy() -> dict[str, Any]:
        there, back = torch.empty(room // 4, device=device), torch.zeros(room // 4, device=device)
        return {"bytes_per_second": 2 * room / (1e-3 * milliseconds(lambda: there.copy_(back), device, turns=5))}

    def eager() -> dict[str, Any]:
        return {"kernel_us": 1e3 * milliseconds(kernels, device) / KERNELS}

    work.attempt("kernel_us", eager)
    if device.type == "cuda":
        work.attempt("graph_us", lambda: {"graph_us": 1e3 * milliseconds(recorded(kernels), device) / KERNELS})
    work.attempt("float32", lambda: product(torch.float32, tf32=False))
    work.attempt("tf32", lambda: product(torch.float32, tf32=True))
    work.attempt("bfloat16", lambda: product(torch.bfloat16, tf32=False))
    work.attempt("float64", lambda: product(torch.float64, tf32=False))
    work.attempt("bytes", copy)


if __name__ == "__main__":
    main()
