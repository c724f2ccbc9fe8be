r"""Data and replications of the same utterances, and their predictive p-values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.reporting.command_line import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from corpora.loading.sequences import Prepared
    from evaluation.predictive_checks.spectra import Tracks
    from inference.runs import Run

__all__ = ["Check", "DRAWS", "check", "metrics", "p_value", "report_of", "table"]


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

    from evaluation.predictive_checks.replications import batches, posterior_draws, prior_draws
    from evaluation.predictive_checks.spectra import Tracks, track
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

    from evaluation.predictive_checks.spectra import STATISTICS, statistics

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
    from evaluation.predictive_checks.spectra import STATISTICS
    from evaluation.reporting.report import text_table

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
    from evaluation.reporting.provenance import provenance

    return {
        **provenance("predictive_checks", run, request._replace(mode=mode, latents="sample")),
        "num_sequences": len(found.lengths),
        "draws": draws,
        "metrics": metrics(found),
    }
