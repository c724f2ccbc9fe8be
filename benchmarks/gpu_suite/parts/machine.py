"""Versions of packages, the GPU, and missing packages and programs."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu_suite.parts.common import Work

PACKAGES = ("numpy", "pyro-ppl", "triton", "librosa", "arviz", "pesq", "pystoi", "omegaconf", "soundfile", "pytest")


def main() -> None:
    """Record versions and the device."""
    work = Work()
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    work.record(**found, graphviz="missing" if shutil.which("dot") is None else "installed")
    import torch

    work.record(torch=torch.__version__, cuda=torch.version.cuda, threads=torch.get_num_threads())
    work.attempt("card", lambda: _card(work))
    work.attempt("import", lambda: {"library": find_spec("inference.svi") is not None})


def _card(work: Work) -> dict[str, Any]:
    import torch

    device = work.device
    if device.type != "cuda":
        return {"card": "cpu"}
    of = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    torch.ones(1, device=device).sum().item()
    return {
        "card": of.name,
        "capability": f"{of.major}.{of.minor}",
        "multiprocessors": of.multi_processor_count,
        "free_gib": free / 2**30,
        "total_gib": total / 2**30,
        "cudnn": torch.backends.cudnn.version(),
    }


if __name__ == "__main__":
    main()
