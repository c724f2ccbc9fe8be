"""Time generation frame by frame: with what a model keeps of the past, against computing all of the past again.

python -m benchmarks.generation --model light_dvae --frames 50 100 200 --bins 513 --json generation.json

A recurrent network keeps its state, a transformer keys and values of all frames (`models.nn.attention.Decoder`), a
ladder (`ms_stcn`) the last inputs of its convolutions. Both forms draw the same frames from the same noise. They take
turns, and the least of several runs counts, as noise only ever adds time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import add_common, keep
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import guarded

if TYPE_CHECKING:
    from torch import Tensor

    from inference.settings.tree import Settings
    from models.dvae import DVAE
    from models.ms_stcn import MSSTCN

__all__ = ["generated", "main", "measure"]

Report = dict[str, Any]
FORMS = ("cached", "recomputed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 the user's mistake."""
    args = _parser().parse_args(argv)

    def command() -> None:
        report = _run(args)
        keep(args.json, report)
        print(_text(report))

    return guarded(command)


def generated(model: DVAE, frames: int, sequences: int, form: str) -> Tensor:
    """Frames x (T, N, D) drawn from the model, ``"cached"`` or ``"recomputed"``."""
    import torch

    from models.core.sites import Sites
    from models.core.tensors import concatenate
    from models.core.time_axis import Causal, Looped
    from models.ms_stcn import MSSTCN

    class Recomputing(Looped):
        """A loop in which networks keep their input alone, and go through all of it for every frame."""

        def recur(self, net: Causal, *inputs: Tensor, lag: bool = False) -> Tensor:
            u = concatenate(*inputs)
            index = self._recurrences
            self._recurrences += 1
            if lag and self.start == 0:
                return u.new_zeros(*u.shape[:-1], net.out_dim)
            past = self.carry.states.get(index)
            seen = u if past is None else torch.cat([past[0], u], dim=-3)
            self.carry.states[index] = (seen,)
            return net(seen, None)[0][..., -1:, :, :]

    lengths = torch.full((sequences,), frames)
    sites = Sites({"x": None}, lengths, model.sizes, next(model.parameters()))
    with torch.no_grad():
        if not isinstance(model, MSSTCN):
            (Looped if form == "cached" else Recomputing).run(model.step, sites)
        elif form == "cached":
            model.all_frames(sites, lengths)
        else:
            return _recomputed(model, frames, sequences)
    return sites.registered["x"]


def _recomputed(model: MSSTCN, frames: int, sequences: int) -> Tensor:
    """Frames of a ladder, all of its networks run on all frames before each; what was drawn is kept."""
    import torch

    from models.core.sites import Sites

    like = next(model.parameters())
    x = like.new_zeros(0, sequences, model.x_dim)
    kept = [like.new_zeros(0, sequences, size) for size in model.z_dims]

    def latent(i: int, h: Tensor) -> Tensor | None:
        if not model.latents:
            return None
        if len(h) > len(kept[i]):
            kept[i] = torch.cat([kept[i], model.prior(i, h[-1:]).sample()])
        return kept[i]

    for t in range(frames):
        sites = Sites({"x": None}, torch.full((sequences,), t + 1), model.sizes, like)
        told = model.input(torch.cat([x, x.new_zeros(1, *x.shape[1:])]))  # of frame t nothing is known, nor seen
        g = model.ladder.sample_top_down(model.ladder.features(told, sites), sites, latent)
        x = torch.cat([x, model.decoder(g[-1:]).sample()])
    return x


def measure(settings: Settings, frames: Sequence[int], sequences: int, *, runs: int = 3) -> Report:
    """Time both forms for several numbers of frames.

    Args:
        settings: the settings of a run; of the data only `model.bins` counts.
        frames: numbers of frames T to generate.
        sequences: sequences N that are generated together.
        runs: interleaved runs, of which the least time counts.

    Returns:
        What `--json` writes: the sizes, and for each T `cached_s` and `recomputed_s` per frame, and their `ratio`,
        recomputed to cached.

    Raises:
        UserError: for a model that draws all frames at once.
    """
    import pyro
    import torch

    from benchmarks.train_step import clock, power_spectra
    from inference.runs import create, pick_device
    from models.ms_stcn import MSSTCN

    model, _ = create(settings)
    if not (model.stepwise or isinstance(model, MSSTCN)):
        raise UserError(f"model '{settings.model.name}' draws all frames at once: there is no past to keep.")
    model.fit_input(power_spectra(10, 4, settings.model.bins).unbind(1))
    model.eval()
    now = clock(pick_device(settings.device))
    rows = []
    with pyro.validation_enabled(False):
        generated(model, min(frames), sequences, "cached")  # warm up
        for number in frames:
            times: dict[str, list[float]] = {form: [] for form in FORMS}
            for _ in range(runs):
                for form in FORMS:
                    torch.manual_seed(0)
                    started = now()
                    generated(model, number, sequences, form)
                    times[form].append(now() - started)
            cached, recomputed = (min(times[form]) / number for form in FORMS)
            rows.append(
                {"frames": number, "cached_s": cached, "recomputed_s": recomputed, "ratio": recomputed / cached}
            )
    return {
        "model": settings.model.name,
        "sequences": sequences,
        "bins": settings.model.bins,
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rows": rows,
    }


def _run(args: argparse.Namespace) -> Report:
    for name in ("frames", "sequences", "bins", "runs", "threads"):
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < 1:
                raise UserError(f"--{name} {value}: expected at least 1.")
    from inference.settings.resolve import resolve

    fixed = [f"model.bins={args.bins}", f"device={args.device}"]
    settings = resolve(args.model, None, None, [*fixed, *args.settings])
    if settings.model.bins != args.bins:
        raise UserError(f"--bins {args.bins} contradicts model.bins={settings.model.bins}. Give one of them.")
    import torch

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return measure(settings, args.frames, args.sequences, runs=args.runs)


def _text(report: Report) -> str:
    sizes = "{model}: N={sequences}, F={bins}, {threads} threads, {parameters} parameters of the model"
    row = "T={frames}: {cached_s:.5f} s per frame cached, {recomputed_s:.5f} s recomputed, ratio {ratio:.2f}"
    return "\n".join([sizes.format_map(report), *(row.format_map(each) for each in report["rows"])])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generation",
        description="Time generation frame by frame: with caches or states, against computing all of the past again.",
    )
    parser.add_argument("--model", required=True, metavar="M", help="the generative model")
    parser.add_argument("--frames", type=int, nargs="+", default=[50, 100, 200], metavar="T", help="(%(default)s)")
    parser.add_argument("--sequences", type=int, default=1, metavar="N", help="generated together (%(default)s)")
    add_common(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
