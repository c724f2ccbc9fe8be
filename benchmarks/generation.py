"""Time of generation frame by frame: with cached states against recomputing the whole past.

python -m benchmarks.generation --model light_dvae --frames 50 100 200 --bins 513 --json generation.json

The cache of a recurrent network is its state, that of a transformer keys and values of all frames
(`models.nn.attention.Decoder`), that of a ladder (`ms_stcn`) the last inputs of its convolutions. Both forms draw the
same frames from the same noise and alternate; the smallest of several times counts, since noise only adds time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.arguments import add_common, add_model, keep, settings_of
from benchmarks.timing import clock, power_spectra
from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import check_minimum
from inference.runs import create, pick_device
from inference.settings.tree import Settings
from models.core.sites import Sites
from models.core.tensors import concatenate
from models.core.time_axis import Causal, Looped, Parallel, TimeAxis
from models.dvae import DVAE
from models.ms_stcn import MSSTCN

__all__ = ["generated", "main", "measure"]

Report = dict[str, Any]
FORMS = ("cached", "recomputed")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""

    def command() -> None:
        args = _parser().parse(argv)
        check_minimum(args, frames=1, sequences=1, bins=1, repeats=1, threads=1)
        report = measure(settings_of(args), args.frames, args.sequences, runs=args.repeats)
        keep(args.json, report)
        print(_text(report))

    return guarded(command)


class Recomputing(Looped):
    """A loop in which networks store their inputs, and process all of them again for every frame."""

    def recur(self, net: Causal, *inputs: Tensor, lag: bool = False) -> Tensor:
        u = concatenate(*inputs)
        index = self._recurrences
        self._recurrences += 1
        if lag and self.start == 0:
            return u.new_zeros(*u.shape[:-1], net.out_dim)
        past = self.carry.states.get(index)
        history = u if past is None else torch.cat([past[0], u], dim=-3)
        self.carry.states[index] = (history,)
        return net(history, None)[0][..., -1:, :, :]


def generated(model: DVAE, frames: int, sequences: int, form: str) -> Tensor:
    """Frames x (T, N, D) drawn from the model, ``"cached"`` or ``"recomputed"``."""
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
    """Frames of a ladder whose networks process all previous frames again for each; draws are stored."""
    like = next(model.parameters())
    x = like.new_zeros(0, sequences, model.x_dim)
    kept = [like.new_zeros(0, sequences, size) for size in model.z_dims]

    def latent(tau: TimeAxis, i: int, h: Tensor) -> Tensor | None:
        if not model.latents:
            return None
        if len(h) > len(kept[i]):
            kept[i] = torch.cat([kept[i], model.prior(i, h[-1:]).sample()])
        return kept[i]

    for t in range(frames):
        sites = Sites({"x": None}, torch.full((sequences,), t + 1), model.sizes, like)
        known = model.input(torch.cat([x, x.new_zeros(1, *x.shape[1:])]))  # x_t does not influence its own conditional
        g = model.ladder.sample_top_down(Parallel(sites), latent, d=model.ladder.features(known, sites))
        x = torch.cat([x, model.decoder(g[-1:]).sample()])
    return x


def measure(settings: Settings, frames: Sequence[int], sequences: int, *, runs: int = 3) -> Report:
    """Time both forms for several numbers of frames.

    Args:
        settings: settings of a run; of the data only `model.bins` is used.
        frames: numbers of frames T to generate.
        sequences: sequences N that are generated together.
        runs: interleaved runs, of which the smallest time counts.

    Returns:
        The report: sizes, and for each T `cached_s` and `recomputed_s` per frame, and their `ratio`, recomputed to
        cached.

    Raises:
        UserError: the model draws all frames at once.
    """
    model, _ = create(settings)
    if not (model.stepwise or isinstance(model, MSSTCN)):
        raise UserError(f"model '{settings.model.name}' draws all frames at once: there is no past to cache.")
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


def _text(report: Report) -> str:
    sizes = "{model}: N={sequences}, F={bins}, {threads} threads, {parameters} parameters of the model"
    row = "T={frames}: {cached_s:.5f} s per frame cached, {recomputed_s:.5f} s recomputed, ratio {ratio:.2f}"
    return "\n".join([sizes.format_map(report), *(row.format_map(each) for each in report["rows"])])


def _parser() -> Parser:
    parser = Parser(
        "benchmarks.generation",
        "Time generation frame by frame: with cached states against recomputing the whole past.",
    )
    add_model(parser, guide=False)
    add = parser.add_argument
    add("--frames", type=int, nargs="+", default=[50, 100, 200], metavar="T", help="frames to generate (%(default)s)")
    add("--sequences", type=int, default=1, metavar="N", help="sequences generated together (%(default)s)")
    add_common(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
