"""Time a training step of FHVAE against the number of sequences M in its table of s-vectors.

python -m benchmarks.fhvae_table --sequences 1000 10000 100000 1000000 --json table.json

Three steps at each M: without the discriminative objective, with it over K sampled sequences, and with it over all of
them, which is the one that grows. Steps of a size take turns, and the least median of three runs counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.errors import UserError

__all__ = ["main", "measure"]

Report = dict[str, float | int]


def measure(sequences: int, *, active: int = 5000, segments: int = 256, steps: int = 5, exact: bool = True) -> Report:
    """Seconds per step, optimiser and all, with M sequences.

    Args:
        sequences: M.
        active: K, of the objective over sampled sequences; at most M.
        segments: segments of a batch, each of a sequence of its own.
        steps: steps of each kind in each of three runs.
        exact: also the objective over all M.
    """
    import pyro
    import torch

    from guides.fhvae import FHVAEGuide
    from inference.discriminative import telling_apart
    from inference.objectives import Objective
    from inference.optimisers import build_optimiser, gradients
    from inference.runs import create
    from inference.settings import resolve
    from models.rows import Rows

    settings = resolve("fhvae")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, segments, settings.model.bins, generator=generator)
    lengths = torch.full((segments,), 20)
    rows = torch.arange(segments) * (sequences // segments)
    batch = Rows(rows, torch.full((segments,), 30), rows, sequences, 30 * sequences, trained=True)
    chosen = torch.cat([rows, torch.arange(min(active, sequences))]).unique()
    kinds = {"plain_s": (0.0, None), "sampled_s": (10.0, chosen), **({"exact_s": (10.0, None)} if exact else {})}
    jobs: dict[str, Any] = {}
    for name, (alpha, few) in kinds.items():
        model, guide = create(settings)
        assert isinstance(guide, FHVAEGuide)
        guide.make_table(sequences)
        assert guide.table is not None
        guide.table.sparse = name != "exact_s"
        model.fit_input(x.unbind(1))
        objective = Objective(model, guide)
        settings.train.discriminative.alpha = alpha
        apart = telling_apart(settings.train.discriminative)
        jobs[name] = (objective, build_optimiser(settings.optim, objective), apart, batch._replace(active=few))

    def step(name: str) -> float:
        started = time.perf_counter()
        objective, optimiser, apart, told = jobs[name]
        optimiser.zero_grad(set_to_none=True)
        with apart:
            loss = objective(x, lengths, rows=told).loss / (20 * segments)
        loss.backward()
        torch.nn.utils.get_total_norm(gradients(list(objective.parameters())))
        optimiser.step()
        return time.perf_counter() - started

    found: dict[str, list[float]] = {name: [] for name in jobs}
    with pyro.validation_enabled(False):
        for name in jobs:
            step(name)
        for _ in range(3):
            times: dict[str, list[float]] = {name: [] for name in jobs}
            for _ in range(steps):
                for name in jobs:
                    times[name].append(step(name))
            for name, of_kind in times.items():
                found[name].append(statistics.median(of_kind))
    return {"sequences": sequences, **{name: min(medians) for name, medians in found.items()}}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fhvae_table", description=__doc__.split("\n")[0])
    parser.add_argument("--sequences", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6], metavar="M")
    parser.add_argument(
        "--active", type=int, default=5000, metavar="K", help="sampled sequences (default: %(default)s)"
    )
    parser.add_argument("--segments", type=int, default=256, metavar="N", help="of a batch (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="of each kind in a run (default: %(default)s)")
    parser.add_argument("--exact-up-to", type=int, default=10**5, metavar="M", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here")
    args = parser.parse_args(argv)
    try:
        for name, value in (("active", args.active), ("segments", args.segments), ("steps", args.steps)):
            if value < 1:
                raise UserError(f"--{name} {value}: expected at least 1.")
        if min(args.sequences) < args.segments:
            raise UserError(f"--sequences {min(args.sequences)}: expected at least the {args.segments} of a batch.")
        reports = []
        for sequences in args.sequences:
            exact = sequences <= args.exact_up_to
            sizes = {"active": args.active, "segments": args.segments, "steps": args.steps}
            reports.append(measure(sequences, exact=exact, **sizes))
            print("  ".join(f"{name} {value:.4g}" for name, value in reports[-1].items()), flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
