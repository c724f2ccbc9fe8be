r"""Signal-to-noise ratio of a guide's gradient as a function of K: plain against doubly reparametrised.

python -m benchmarks.gradient_noise --model dkf --json noise.json --picture noise.png

Data are drawn from a small model with initial weights, which stay fixed, and the guide is trained on the ELBO, so that
guide and model match as at the end of a training. Then the gradient of the importance-weighted bound for one batch is
drawn many times, and with it, over the guide's parameters,

.. math:: \mathrm{SNR} = \lVert E g \rVert / \sqrt{\mathrm{tr}\,\mathrm{Cov}\,g}.

For plain gradients it falls as :math:`1 / \sqrt K` (Rainforth et al., "Tighter variational bounds are not necessarily
better", 2018), for doubly reparametrised ones it does not (Tucker et al., 2019). Both have the same mean, so the signal
of both is estimated from the one with less noise: :math:`\lVert E g \rVert^2` is the squared norm of the sample mean
minus the contribution of the noise, which is unbiased. Standard errors are those of the jackknife over ten blocks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from torch import Tensor

from benchmarks.arguments import add_model, keep
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.progress import progress_bar
from evaluation.reporting.command_line import check_minimum
from evaluation.reporting.plots import new_figure, open_axes, save_picture
from inference.objectives.elbo import Objective
from inference.runs import create
from inference.settings.resolve import resolve
from inference.settings.tree import Settings

__all__ = ["Moments", "main", "measure", "moments", "signal_to_noise"]

SMALL = ["model.bins=8", "model.z_dim=2", "dtype=float64"]
"""Settings that the command line may override."""

BLOCKS = 10
"""Blocks of the jackknife."""
ESTIMATORS = {"iwae": "plain", "dreg": "doubly reparametrised"}

Figures = dict[str, str | int | float]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""

    def command() -> None:
        args = _parser().parse(argv)
        check_minimum(args, frames=1, sequences=1, particles=1, repeats=2 * BLOCKS)
        settings = resolve(args.model, args.guide, None, [*SMALL, *args.settings])
        rows = measure(settings, args.particles, args.repeats, args.frames, args.sequences, args.steps)
        keep(args.json, rows)
        if args.picture is not None:
            guide = settings.guide.name
            heading = f"gradient of the guide: {args.model}, guide {guide}, {args.repeats} draws of it for each K"
            save_picture(_picture(rows, heading), args.picture)
        print("| K | plain | doubly reparametrised |\n|---|---|---|")
        for k in args.particles:
            cells = {r["estimator"]: f"{r['snr']:.3f} ± {r['stderr']:.3f}" for r in rows if r["particles"] == k}
            print(f"| {k} | {' | '.join(cells[name] for name in ESTIMATORS)} |")

    return guarded(command)


def measure(
    settings: Settings, particles: Sequence[int], draws: int, frames: int, sequences: int, steps: int
) -> list[Figures]:
    """The signal-to-noise ratio of both gradients of the guide, for each K.

    Args:
        settings: settings of a model and guide.
        particles: the values of K.
        draws: gradients drawn for each.
        frames: frames of each sequence.
        sequences: sequences of the batch.
        steps: training steps of the guide beforehand, each on 32 new sequences.
    """
    model, guide = create(settings)
    model.fit_input(_drawn(model, frames, 1000)[0].unbind(1))
    elbo = Objective(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=settings.optim.lr)
    rows: list[Figures] = []
    with pyro.validation_enabled(False), progress_bar("training the guide", steps, "step") as bar:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            (elbo(*_drawn(model, frames, 32)).loss / (32 * frames)).backward()
            optimizer.step()
            bar.update()
        batch = _drawn(model, frames, sequences)
        for k in particles:
            gradients = {name: moments(Objective(model, guide, name, k), batch, draws) for name in ESTIMATORS}
            for name in ESTIMATORS:
                ratio, error = signal_to_noise(gradients["dreg"], gradients[name])
                rows.append({"estimator": name, "particles": k, "snr": ratio, "stderr": error, "draws": draws})
    return rows


class Moments(NamedTuple):
    """Sums over `BLOCKS` blocks of draws of a gradient.

    Attributes:
        sums: sum of the gradients of each block, (blocks, parameters).
        squares: sum of their squared norms, (blocks,).
        counts: draws in each block, (blocks,).
    """

    sums: Tensor
    squares: Tensor
    counts: Tensor

    def signal_and_noise(self, left_out: int | None) -> tuple[float, float]:
        """Unbiased squared norm of the mean and trace of the covariance, with one block left out."""
        kept = [b for b in range(BLOCKS) if b != left_out]
        count = int(self.counts[kept].sum())
        mean = float((self.sums[kept].sum(0) / count).square().sum())
        noise = (float(self.squares[kept].sum()) - count * mean) / (count - 1)
        return mean - noise / count, noise


def moments(objective: Objective, batch: tuple[Tensor, Tensor], draws: int) -> Moments:
    """Draw the gradient with respect to the guide's parameters repeatedly."""
    parameters: list[Any] = list(objective.guide.parameters())
    blocks = []
    with progress_bar(f"{objective.name}, K = {objective.estimator.num_particles}", draws, "draw") as bar:
        for block in torch.arange(draws).tensor_split(BLOCKS):
            gradients = []
            for _ in block:
                parts = torch.autograd.grad(objective(*batch).loss, parameters)
                gradients.append(torch.cat([part.flatten() for part in parts]).double())
                bar.update()
            blocks.append(torch.stack(gradients))
    sums, squares = torch.stack([b.sum(0) for b in blocks]), torch.stack([b.square().sum() for b in blocks])
    return Moments(sums, squares, torch.tensor([len(b) for b in blocks]))


def signal_to_noise(signal: Moments, noise: Moments) -> tuple[float, float]:
    """The ratio and its standard error; 0 if the estimate of the squared signal is negative.

    Args:
        signal: draws of the gradient that the signal is estimated from.
        noise: draws of the gradient that the noise is estimated from, which has the same mean.
    """

    def squared(left_out: int | None) -> float:
        return signal.signal_and_noise(left_out)[0] / noise.signal_and_noise(left_out)[1]

    replicates = [squared(b) for b in range(BLOCKS)]
    mean = sum(replicates) / BLOCKS
    error = math.sqrt(sum((value - mean) ** 2 for value in replicates) * (BLOCKS - 1) / BLOCKS)
    ratio = math.sqrt(max(0.0, squared(None)))
    return ratio, error / (2 * ratio) if ratio**2 > error else math.sqrt(error)


def _drawn(model: Any, frames: int, sequences: int) -> tuple[Tensor, Tensor]:
    """Sequences drawn from the model, (T, N, D), and their lengths."""
    lengths = torch.full((sequences,), frames)
    with torch.no_grad():
        trace: Any = poutine.trace(model).get_trace(None, lengths)
    return trace.nodes["x"]["value"], lengths


def _picture(rows: list[Figures], heading: str) -> Figure:
    """Signal-to-noise ratio against K, with the rate at which that of plain gradients falls.

    Lines of standard errors end where the axis does: an error as large as its ratio has no lower end on it.
    """
    figure = new_figure(6.0, 4.2, heading, dpi=120)
    axes = figure.subplots()
    low: float = min(row["snr"] for row in rows if row["snr"] > 0.0)  # type: ignore[operator, assignment]  # a ratio is a number
    for name, label in ESTIMATORS.items():
        own: list[Any] = [row for row in rows if row["estimator"] == name]
        particles = [row["particles"] for row in own]
        ratios = [row["snr"] for row in own]
        below = [min(row["stderr"], row["snr"] - 0.5 * low) if row["snr"] > 0.5 * low else 0.0 for row in own]
        errors = [below, [row["stderr"] for row in own]]
        axes.errorbar(particles, ratios, errors, marker="o", capsize=3, label=f"{label} ± standard error")
        if name == "iwae":
            guideline = [own[0]["snr"] * math.sqrt(particles[0] / k) for k in particles]
            axes.plot(particles, guideline, "k:", label=r"falls as $1/\sqrt{K}$")
    axes.set(xscale="log", yscale="log", xlabel="draws K of the bound", ylabel="signal-to-noise ratio of the gradient")
    axes.set_ylim(bottom=0.5 * low)
    open_axes(axes)
    axes.set_xticks(particles, [str(k) for k in particles], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parser() -> Parser:
    parser = Parser(
        "benchmarks.gradient_noise",
        "Signal-to-noise ratio of a guide's gradient: plain against doubly reparametrised.",
    )
    add_model(parser, "dkf")
    parser.add_argument("--particles", type=_numbers, default=[1, 4, 16, 64, 256], metavar="K,...", help="%(default)s")
    parser.add_argument("--repeats", type=int, default=300, help="draws of the gradient for each K (%(default)s)")
    parser.add_argument("--frames", type=int, default=3, metavar="T", help="frames of a sequence (%(default)s)")
    parser.add_argument("--sequences", type=int, default=32, metavar="N", help="sequences of the batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="training steps of the guide beforehand (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the ratios")
    parser.add_settings(example="model.z_dim=8")
    return parser


if __name__ == "__main__":
    sys.exit(main())
