r"""Does a fitted model make spectra like those it has seen? ``python -m evaluation.predictive_checks RUN``.

Frame energy, spectral tilt and pauses (`evaluation.spectra`) of utterances against those of replications: x ~ p(x | z)
with z ~ q(z | x), the posterior predictive, and x ~ p(x), the prior predictive. For a statistic S,

.. math:: p = P(S(x^{rep}) > S(x)) + \tfrac12 P(S(x^{rep}) = S(x))

is the (posterior) predictive p-value (Gelman, Meng & Stern, "Posterior predictive assessment of model fitness", 1996):
near 0 or 1 where the model does not make such data, and not uniform otherwise, but nearer 1/2.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.command import Request, evaluation_parser, guarded, open_run, parse, say
from inference.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from corpora.sequences import Prepared
    from evaluation.spectra import Tracks
    from inference.runs import Run

__all__ = ["Check", "check", "main", "metrics", "p_value", "report_of", "table"]

DRAWS = 100


class Check(NamedTuple):
    """Data and replications of the same utterances.

    Attributes:
        observed, posterior, prior: their tracks.
        lengths: frames of each utterance.
        frame_s: seconds from one frame to the next.
    """

    observed: Tracks
    posterior: Tracks
    prior: Tracks
    lengths: tuple[int, ...]
    frame_s: float


def check(run: Run, sequences: Sequence[Prepared], draws: int, *, rate: float, hop: int, mode: str = "gt") -> Check:
    """Replicate utterances and track energy and tilt.

    Args:
        run: the run; noise is that of its seed.
        sequences: the utterances, power spectra.
        draws: S.
        rate: sampling rate in Hz.
        hop: samples from one frame to the next.
        mode: "gt", the decoder sees the true past, or "gen", its own output.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from evaluation.replications import batches, posterior_draws, prior_draws
    from evaluation.spectra import Tracks, track
    from inference.runs import pick_dtype

    lengths = tuple(len(item.x) for item in sequences)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    made = {
        name: Tracks(*np.empty((2, s, starts[-1]))) for name, s in (("x", 1), ("posterior", draws), ("prior", draws))
    }

    def put(name: str, first: int, places: Sequence[int], x: torch.Tensor) -> int:
        """Track x (s, T, N, F); which draw is next."""
        spectra = x.cpu().numpy().astype(np.float64)
        tracks = track(spectra, rate)
        for whole, part in zip(made[name], tracks, strict=True):
            for j, place in enumerate(places):
                whole[first : first + len(part), starts[place] : starts[place + 1]] = part[:, : lengths[place], j]
        return first + len(spectra)

    bar = tqdm(total=len(lengths), desc="replicating", unit="file", disable=not sys.stderr.isatty(), leave=False)
    with bar, torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        for places, batch in batches(sequences):
            x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
            put("x", 0, places, x[None])
            first = 0
            for part in posterior_draws(run.model, run.guide, x, batch.lengths, draws, mode=mode):
                first = put("posterior", first, places, part.replicated)
            first = 0
            for replicated in prior_draws(run.model, batch.lengths, draws, run.model.x_dim):
                first = put("prior", first, places, replicated)
            bar.update(len(places))
    return Check(made["x"], made["posterior"], made["prior"], lengths, hop / rate)


def p_value(observed: float, replicated: NDArray[np.float64]) -> float | None:
    """P(replicated > observed), ties counted half; None where the statistic does not exist."""
    import numpy as np

    there = replicated[np.isfinite(replicated)]
    if not np.isfinite(observed) or there.size == 0:
        return None
    return float((there > observed).mean() + 0.5 * (there == observed).mean())


def metrics(found: Check) -> dict[str, dict[str, Any]]:
    """Of each statistic the observed value, and mean, 5 % and 95 % quantile and p-value of either replication."""
    import numpy as np

    from evaluation.spectra import STATISTICS, statistics

    of = {name: statistics(getattr(found, name), found.lengths, found.frame_s) for name in Check._fields[:3]}

    def described(name: str, statistic: str) -> dict[str, float | None]:
        values = of[name][statistic]
        there = values[np.isfinite(values)]
        mean, low, high = (there.mean(), *np.quantile(there, [0.05, 0.95])) if there.size else (None, None, None)
        known = {"mean": mean, "low": low, "high": high, "p": p_value(of["observed"][statistic][0], values)}
        return {key: None if value is None else float(value) for key, value in known.items()}

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        statistic: {
            "observed": number(of["observed"][statistic][0]),
            **{name: described(name, statistic) for name in ("posterior", "prior")},
        }
        for statistic in STATISTICS
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for the terminal."""
    from evaluation.reports import text_table
    from evaluation.spectra import STATISTICS

    lines = []
    for statistic, label in STATISTICS.items():
        found = report["metrics"][statistic]
        cells = [label, _text(found["observed"])]
        for name in ("posterior", "prior"):
            of = found[name]
            cells += [f"{_text(of['mean'])} [{_text(of['low'])}, {_text(of['high'])}]", _text(of["p"])]
        lines.append(cells)
    guide = f"{report['model']}, guide {report['guide']}"
    return (
        f"{guide}: {report['corpus']}, split {report['split']}, {report['num_sequences']} utterances, "
        f"mode {report['mode']}, {report['draws']} replications\n\n"
        + text_table(["", "observed", "x ~ p(x|z), z ~ q [5 %, 95 %]", "p", "x ~ p(x) [5 %, 95 %]", "p"], lines)
    )


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def report_of(run: Run, request: Request, found: Check, draws: int, mode: str) -> dict[str, Any]:
    """The report of predictive_checks.json."""
    from evaluation.provenance import provenance

    return {
        **provenance("predictive_checks", run, request._replace(mode=mode, latents="sample")),
        "num_sequences": len(found.lengths),
        "draws": draws,
        "metrics": metrics(found),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("predictive_checks", "Check energy, tilt and pauses of what a model makes.")
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="S", help="replications (default: %(default)s)")
    parser.add_argument("--sequences", type=int, metavar="N", help="utterances, spread over the split (default: all)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them (png, pdf, svg)")

    def command() -> None:
        request, given = parse(parser, argv)
        if given.draws < 20 or (given.sequences is not None and given.sequences < 1):
            raise UserError("--draws takes a number from 20 up (it gives 5 % quantiles), --sequences one from 1 up.")
        if request.latents == "mean":
            raise UserError("--latents mean: a predictive distribution needs draws of the latents. Leave it away.")
        _command(request, given.draws, given.sequences, given.picture)

    return guarded(command)


def _command(request: Request, draws: int, most: int | None, picture: Path | None) -> None:
    run = open_run(request)
    from corpora.frontends import Stft, open_frontend
    from evaluation.provenance import autoregressive
    from evaluation.replications import read_utterances
    from evaluation.reports import write_json

    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    if not isinstance(frontend, Stft):
        raise UserError(
            f"{run.path} uses front end '{run.settings.data.frontend}': energy, tilt and pauses are those of power "
            "spectra.\nThe checks need a run with data.frontend=stft."
        )
    mode = request.mode or run.settings.evaluation.mode
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    sequences = read_utterances(run, frontend, request.split, most)
    found = check(run, sequences, draws, rate=frontend.rate, hop=frontend.hop, mode=mode)
    report = report_of(run, request, found, draws, mode)
    for path in (run.path / "predictive_checks.json", request.json):
        if path is not None:
            write_json(path, report)
    print(table(report))
    print("\np is near 0 or 1 where the model makes no such data; it is P(replicated > observed)")
    if autoregressive(run) and mode == "gt":
        print("each frame of x ~ p(x|z) is given the true frames before it: a kinder check than --mode gen")
    if picture is not None:
        from evaluation.check_pictures import check_picture
        from evaluation.pictures import save_picture

        save_picture(check_picture(found, [item.file for item in sequences], table(report).splitlines()[0]), picture)
        say(f"drew {picture}")
    say(f"wrote {run.path / 'predictive_checks.json'}")


if __name__ == "__main__":
    sys.exit(main())
