"""Time of a training step: all frames at once against frame by frame, in one process.

python -m benchmarks.train_step --model dkf --frames 150 --sequences 32 --bins 257 --json step.json

A step is forward, backward and optimiser step on synthetic power spectra. Steps of the two forms alternate, so that
disturbances affect both. Each of several runs gives a median for each form, and the smallest counts, since noise only
adds time.

With `--peer module:function` the steps of another model alternate with them: `function(name, x)`, given the name of the
model and data x (T, N, F), returns a module and a function without arguments that computes the loss of x. Both are
trained by Adam. On one thread, times are those of the CPU, which other processes on the machine affect less.

The floor is the arithmetic alone: 6 operations (forward, gradient of inputs, gradient of weights; a multiplication and
an addition each) for every parameter and frame, at the rate of a product of large matrices on this machine.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor, nn

from benchmarks.arguments import add_common, add_model, keep, settings_of, without_graph
from benchmarks.timing import clock, interleaved, power_spectra
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import check_minimum
from inference.objectives.elbo import Objective
from inference.runs import create, pick_device, pick_dtype
from inference.settings.tree import Settings

__all__ = ["main", "measure"]

FORMS = {"parallel": "auto", "stepwise": "stepwise"}
"""Name of each form in the report, and its `how` in model and guide."""

PRODUCT = 1024
"""Rows and columns of the matrices whose product measures the machine."""

Report = dict[str, str | int | float]
Peer = Callable[[str, Tensor], tuple[nn.Module, Callable[[], Tensor]]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""

    def command() -> None:
        args = _parser().parse(argv)
        check_minimum(args, frames=1, sequences=1, bins=1, steps=1, repeats=1, threads=1)
        settings = without_graph(settings_of(args, args.guide))
        if settings.train.objective == "fivo":
            raise UserError("train.objective=fivo runs frame by frame in either form: there is nothing to compare.")
        peer = None if args.peer is None else load(args.peer)
        report = measure(settings, args.frames, args.sequences, steps=args.steps, runs=args.repeats, peer=peer)
        keep(args.json, report)
        print(_text(report))

    return guarded(command)


def load(place: str) -> Peer:
    """The function that `--peer` names; modules are searched for in the current folder too.

    Raises:
        UserError: if there is none.
    """
    module, _, name = place.partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--peer {place}: {error}. Expected module:function, of a module on the path.") from error
    finally:
        sys.path.remove("")
    peer: Peer = found
    return peer


def measure(
    settings: Settings, frames: int, sequences: int, *, steps: int = 5, runs: int = 3, peer: Peer | None = None
) -> Report:
    """Time both forms of the training step of a model and guide.

    Args:
        settings: settings of a run; of the data only `model.bins` is used.
        frames: frames T of each sequence.
        sequences: sequences N of the batch.
        steps: steps of each form in a run, after two that warm up.
        runs: interleaved runs, of which the smallest median counts.
        peer: another model, timed beside them.

    Returns:
        The report; times are seconds per step, frames per second those of the parallel form.
    """
    model, guide = create(settings)
    device, dtype = pick_device(settings.device), pick_dtype(settings.dtype)
    x = power_spectra(frames, sequences, settings.model.bins)
    model.fit_input(x.unbind(1))
    x, lengths = x.to(device=device, dtype=dtype), torch.full((sequences,), frames)
    objective = Objective.of(model, guide, settings.train)
    optimizer = torch.optim.Adam(objective.parameters(), lr=settings.optim.lr)

    of_peer = None if peer is None else _peer_step(peer(settings.model.name, x), settings.optim.lr)

    square = torch.rand(PRODUCT, PRODUCT, device=device, dtype=dtype)

    def step(how: str) -> None:
        if how == "product":
            square @ square
        elif how == "peer" and of_peer is not None:
            of_peer()
        else:
            optimizer.zero_grad(set_to_none=True)
            bound = objective(x, lengths, beta=settings.train.beta, how=how)
            (bound.loss / (frames * sequences)).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with pyro.validation_enabled(False):  # as in training
        forms = {**FORMS, "product": "product"} | ({} if peer is None else {"peer": "peer"})
        medians = [interleaved(step, steps, forms, now=clock(device)) for _ in range(runs)]
    seconds = {form: min(median[form] for median in medians) for form in medians[0]}
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    rate = 2 * PRODUCT**3 / seconds["product"]
    floor = 6 * parameters * frames * sequences / rate
    report: Report = {
        "model": settings.model.name,
        "frames": frames,
        "sequences": sequences,
        "bins": settings.model.bins,
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "parallel_s": seconds["parallel"],
        "stepwise_s": seconds["stepwise"],
        "ratio": seconds["parallel"] / seconds["stepwise"],
        "frames_per_second": frames * sequences / seconds["parallel"],
        "operations_per_second": rate,
        "floor_s": floor,
        "over_floor": seconds["parallel"] / floor,
    }
    beside = {} if peer is None else {"peer_s": seconds["peer"], "over_peer": seconds["parallel"] / seconds["peer"]}
    return {**report, **beside}


def _peer_step(peer: tuple[nn.Module, Callable[[], Tensor]], lr: float) -> Callable[[], None]:
    """A training step of a peer."""
    module, loss = peer
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def _text(report: Report) -> str:
    sizes = "{model}: T={frames}, N={sequences}, F={bins}, {threads} threads, {parameters} parameters"
    times = "parallel {parallel_s:.4f} s, stepwise {stepwise_s:.4f} s, ratio {ratio:.3f}"
    floor = "{frames_per_second:.0f} frames per second, {over_floor:.2f} times the floor of {floor_s:.4f} s"
    peer = ("peer {peer_s:.4f} s, parallel over peer {over_peer:.3f}",) if "peer_s" in report else ()
    return "\n".join(part.format_map(report) for part in (sizes, times, floor, *peer))


def _parser() -> Parser:
    parser = Parser(
        "benchmarks.train_step",
        "Time a training step: all frames at once against frame by frame.",
    )
    add_model(parser)
    parser.add_argument("--frames", type=int, default=150, metavar="T", help="frames of a sequence (%(default)s)")
    parser.add_argument("--sequences", type=int, default=32, metavar="N", help="sequences of a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps of each form in a run (%(default)s)")
    parser.add_argument("--peer", metavar="M:F", help="module:function of another model that is timed beside it")
    add_common(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
