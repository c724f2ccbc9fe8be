"""Replications of utterances, their statistics, and predictive p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.loading.sequences import Prepared
from dvae_pyro.progress import progress_bar
from evaluation.loading.splits import batches
from evaluation.predictive_checks.replications import posterior_draws, prior_draws
from evaluation.predictive_checks.spectra import STATISTICS, Tracks, statistics, track
from evaluation.reporting.command_line import Request
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import mode_text, text_table
from inference.runs import Run, pick_dtype

__all__ = ["Check", "check", "metrics", "p_value", "report_of", "table"]


class Check(NamedTuple):
    """Tracks of data and replications of the same utterances.

    Attributes:
        observed: tracks of the data.
        posterior: tracks of x ~ p(x | z), z ~ q(z | x).
        prior: tracks of x ~ p(x).
        lengths: frames of each utterance.
        frame_s: hop in seconds.
    """

    observed: Tracks
    posterior: Tracks
    prior: Tracks
    lengths: tuple[int, ...]
    frame_s: float


def check(run: Run, sequences: Sequence[Prepared], draws: int, *, rate: float, hop: int, mode: str = "gt") -> Check:
    """Replicate utterances, and track energy and tilt.

    Args:
        run: the run; the noise follows its seed.
        sequences: the utterances, power spectra.
        draws: number of replications S.
        rate: sampling rate in Hz.
        hop: samples from one frame to the next.
        mode: "gt", the decoder is given the true past, or "gen", its own output.
    """
    lengths = tuple(len(item.x) for item in sequences)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    counts = {"observed": 1, "posterior": draws, "prior": draws}
    tracks = {name: Tracks(*np.empty((2, count, starts[-1]))) for name, count in counts.items()}

    def put(name: str, first: int, indices: Sequence[int], x: torch.Tensor) -> int:
        """Track draws x (s, T, N, F) from number `first` on; returns the number of the next draw."""
        spectra = x.cpu().numpy().astype(np.float64)
        for whole, part in zip(tracks[name], track(spectra, rate), strict=True):
            for j, index in enumerate(indices):
                whole[first : first + len(part), starts[index] : starts[index + 1]] = part[:, : lengths[index], j]
        return first + len(spectra)

    with progress_bar("replicating", len(lengths), "file", leave=False) as bar, torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        for indices, batch in batches(sequences):
            x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
            put("observed", 0, indices, x[None])
            first = 0
            for part in posterior_draws(run.model, run.guide, x, batch.lengths, draws, mode=mode):
                first = put("posterior", first, indices, part.replicated)
            first = 0
            for replicated in prior_draws(run.model, batch.lengths, draws, run.model.x_dim):
                first = put("prior", first, indices, replicated)
            bar.update(len(indices))
    return Check(tracks["observed"], tracks["posterior"], tracks["prior"], lengths, hop / rate)


def p_value(observed: float, replicated: NDArray[np.float64]) -> float | None:
    """P(replicated > observed), ties counting one half; None where the statistic is undefined."""
    defined = replicated[np.isfinite(replicated)]
    if not np.isfinite(observed) or defined.size == 0:
        return None
    return float((defined > observed).mean() + 0.5 * (defined == observed).mean())


def metrics(tracks: Check) -> dict[str, dict[str, Any]]:
    """The observed value of each statistic, and mean, 5 % and 95 % quantile and p-value of both replications."""
    values = {name: statistics(getattr(tracks, name), tracks.lengths, tracks.frame_s) for name in Check._fields[:3]}

    def described(name: str, statistic: str) -> dict[str, float | None]:
        replicated = values[name][statistic]
        defined = replicated[np.isfinite(replicated)]
        mean, low, high = (defined.mean(), *np.quantile(defined, [0.05, 0.95])) if defined.size else (None,) * 3
        p = p_value(values["observed"][statistic][0], replicated)
        figures = {"mean": mean, "low": low, "high": high, "p": p}
        return {key: None if value is None else float(value) for key, value in figures.items()}

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        statistic: {
            "observed": number(values["observed"][statistic][0]),
            **{name: described(name, statistic) for name in ("posterior", "prior")},
        }
        for statistic in STATISTICS
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for the terminal."""
    lines = []
    for statistic, label in STATISTICS.items():
        figures = report["metrics"][statistic]
        cells = [label, _text(figures["observed"])]
        for name in ("posterior", "prior"):
            f = figures[name]
            cells += [f"{_text(f['mean'])} [{_text(f['low'])}, {_text(f['high'])}]", _text(f["p"])]
        lines.append(cells)
    return (
        f"{report['model']}, guide {report['guide']}: {report['corpus']}, split {report['split']}, "
        f"{report['num_sequences']} utterances{mode_text(report)}, {report['draws']} replications\n\n"
        + text_table(["", "observed", "x ~ p(x|z), z ~ q [5 %, 95 %]", "p", "x ~ p(x) [5 %, 95 %]", "p"], lines)
    )


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def report_of(run: Run, request: Request, tracks: Check, draws: int, mode: str) -> dict[str, Any]:
    """The report, ``predictive_checks.json``."""
    return {
        **provenance("predictive_checks", run, request._replace(mode=mode, latents="sample")),
        "num_sequences": len(tracks.lengths),
        "draws": draws,
        "metrics": metrics(tracks),
    }
