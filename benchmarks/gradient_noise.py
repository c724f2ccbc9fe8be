r"""The signal and the noise of a guide's gradient, as the number of draws K grows: plain against doubly reparametrised.

python -m benchmarks.gradient_noise --model dkf --json noise.json --picture noise.png

Data are drawn from a small model as it is initialised, and its guide is trained on the ELBO for a while, the model left
as it is: so they are near to each other, as at the end of a training. Then the gradient of the importance-weighted
bound is drawn many times over for one batch, and with it, over the guide's parameters,

.. math:: \mathrm{SNR} = \lVert E g \rVert / \sqrt{\mathrm{tr}\,\mathrm{Cov}\,g}.

For plain gradients it falls as 1 / \sqrt K (Rainforth et al., "Tighter variational bounds are not necessarily better",
2018), for doubly reparametrised ones it does not (Tucker et al., 2019). Both have the same mean, so the quieter one
measures the signal of both: :math:`\lVert E g \rVert^2` is the squared norm of its mean less what its noise adds, which
is unbiased. Standard errors are the jackknife's over ten blocks.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.arguments import keep
from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from evaluation.reporting.command_line import guarded

if TYPE_CHECKING:
    from torch import Tensor

    from inference.objectives.elbo import Objective
    from inference.settings.tree import Settings

__all__ = ["Moments", "main", "measure", "moments", "signal_to_noise"]

SMALL = ["model.bins=8", "model.z_dim=2", "dtype=float64"]
"""Settings that the command line's come after."""

BLOCKS = 10
ESTIMATORS = {"iwae": "plain", "dreg": "doubly reparametrised"}

Row = dict[str, str | int | float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    args = _parser().parse_args(argv)

    def command() -> None:
        rows = _run(args)
        keep(args.json, rows)
        if args.picture is not None:
            with disk_errors(args.picture):
                _draw(rows, args.picture)
        print("| K | plain | doubly reparametrised |\n|---|---|---|")
        for k in args.particles:
            found = {r["estimator"]: f"{r['snr']:.3f} ± {r['stderr']:.3f}" for r in rows if r["particles"] == k}
            print(f"| {k} | {' | '.join(found[name] for name in ESTIMATORS)} |")

    return guarded(command)


def _run(args: argparse.Namespace) -> list[Row]:
    numbers = {
        "draws": args.draws,
        "frames": args.frames,
        "sequences": args.sequences,
        "particles": min(args.particles),
    }
    for name, value in numbers.items():
        if value < (2 * BLOCKS if name == "draws" else 1):
            raise UserError(f"--{name} {value}: expected at least {2 * BLOCKS if name == 'draws' else 1}.")
    from inference.settings.resolve import resolve

    settings = resolve(args.model, args.guide, None, [*SMALL, *args.settings])
    return measure(settings, args.particles, args.draws, args.frames, args.sequences, args.steps)


def measure(
    settings: Settings, particles: Sequence[int], draws: int, frames: int, sequences: int, steps: int
) -> list[Row]:
    """The signal-to-noise ratio of either gradient of the guide, for each K.

    Args:
        settings: the settings of a model and guide.
        particles: every K.
        draws: gradients drawn for each.
        frames: of each sequence.
        sequences: of the batch that they are drawn for.
        steps: of training the guide beforehand, each on 32 fresh sequences.
    """
    import pyro
    import torch
    from tqdm import tqdm

    from inference.objectives.elbo import Objective
    from inference.runs import create

    model, guide = create(settings)
    model.fit_input(_drawn(model, frames, 1000)[0].unbind(1))
    elbo = Objective(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=settings.optim.lr)
    rows: list[Row] = []
    with pyro.validation_enabled(False):
        for _ in tqdm(range(steps), desc="training the guide", file=sys.stderr):
            optimizer.zero_grad(set_to_none=True)
            (elbo(*_drawn(model, frames, 32)).loss / (32 * frames)).backward()
            optimizer.step()
        batch = _drawn(model, frames, sequences)
        for k in particles:
            found = {name: moments(Objective(model, guide, name, k), batch, draws) for name in ESTIMATORS}
            for name in ESTIMATORS:
                ratio, error = signal_to_noise(found["dreg"], found[name])
                rows.append({"estimator": name, "particles": k, "snr": ratio, "stderr": error, "draws": draws})
    return rows


class Moments(NamedTuple):
    """What `BLOCKS` blocks of draws of a gradient add up to.

    Attributes:
        sums: of the gradients of each block, (blocks, parameters).
        squares: of their squared norms, (blocks,).
        counts: draws in each block, (blocks,).
    """

    sums: Tensor
    squares: Tensor
    counts: Tensor

    def signal_and_noise(self, left_out: int | None) -> tuple[float, float]:
        """Squared norm of the mean, unbiased, and trace of the covariance, without one of the blocks."""
        kept = [b for b in range(BLOCKS) if b != left_out]
        count = int(self.counts[kept].sum())
        mean = float((self.sums[kept].sum(0) / count).square().sum())
        noise = (float(self.squares[kept].sum()) - count * mean) / (count - 1)
        return mean - noise / count, noise


def moments(objective: Objective, batch: tuple[Tensor, Tensor], draws: int) -> Moments:
    """Draw the gradient of the guide's parameters again and again."""
    import torch
    from tqdm import tqdm

    parameters: list[Any] = list(objective.guide.parameters())
    blocks, name = [], f"{objective.name}, K = {objective.particles}"
    done = tqdm(total=draws, desc=name, file=sys.stderr)
    for block in torch.arange(draws).tensor_split(BLOCKS):
        gradients = []
        for _ in block:
            parts = torch.autograd.grad(objective(*batch).loss, parameters)
            gradients.append(torch.cat([part.flatten() for part in parts]).double())
            done.update()
        blocks.append(torch.stack(gradients))
    done.close()
    sums, squares = torch.stack([b.sum(0) for b in blocks]), torch.stack([b.square().sum() for b in blocks])
    return Moments(sums, squares, torch.tensor([len(b) for b in blocks]))


def signal_to_noise(signal: Moments, noise: Moments) -> tuple[float, float]:
    """The ratio and its standard error; 0 where no signal is left in the noise.

    Args:
        signal: draws of a gradient whose mean is the signal.
        noise: draws of the gradient whose noise counts, the same ones or others of the same mean.
    """

    def squared(left_out: int | None) -> float:
        return signal.signal_and_noise(left_out)[0] / noise.signal_and_noise(left_out)[1]

    left = [squared(b) for b in range(BLOCKS)]
    error = math.sqrt(sum((value - sum(left) / BLOCKS) ** 2 for value in left) * (BLOCKS - 1) / BLOCKS)
    found = math.sqrt(max(0.0, squared(None)))
    return found, error / (2 * found) if found**2 > error else math.sqrt(error)


def _drawn(model: Any, frames: int, sequences: int) -> tuple[Tensor, Tensor]:
    """Sequences drawn from the model, (T, N, D), and their lengths."""
    import pyro.poutine as poutine
    import torch

    lengths = torch.full((sequences,), frames)
    with torch.no_grad():
        trace: Any = poutine.trace(model).get_trace(None, lengths)
    return trace.nodes["x"]["value"], lengths


def _draw(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for name, label in ESTIMATORS.items():
        own: list[Any] = [row for row in rows if row["estimator"] == name]
        particles = [row["particles"] for row in own]
        bars = [row["stderr"] for row in own]
        axes.errorbar(particles, [row["snr"] for row in own], bars, marker="o", capsize=3, label=label)
        if name == "iwae":
            guideline = [own[0]["snr"] * math.sqrt(particles[0] / k) for k in particles]
            axes.plot(particles, guideline, "k:", label=r"falls as $1/\sqrt{K}$")
    axes.set(xscale="log", yscale="log", xlabel="draws K", ylabel="signal-to-noise ratio")
    axes.set_xticks(particles, [str(k) for k in particles], minor=False)
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gradient_noise",
        description="Signal-to-noise ratio of a guide's gradient: plain against doubly reparametrised.",
    )
    parser.add_argument("--model", default="dkf", metavar="M", help="the generative model (%(default)s)")
    parser.add_argument("--guide", metavar="G", help="the inference model (default: own)")
    parser.add_argument("--particles", type=_numbers, default=[1, 4, 16, 64, 256], metavar="K,...", help="%(default)s")
    parser.add_argument("--draws", type=int, default=300, help="of the gradient for each K (%(default)s)")
    parser.add_argument("--frames", type=int, default=3, metavar="T", help="per sequence (%(default)s)")
    parser.add_argument("--sequences", type=int, default=32, metavar="N", help="in the batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of training the guide beforehand (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw them")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, such as model.z_dim=8")
    return parser


if __name__ == "__main__":
    sys.exit(main())
