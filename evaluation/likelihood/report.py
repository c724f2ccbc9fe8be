"""The report of likelihood estimates: what is measured, how it is put together with earlier ones, and printed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from corpora.loading.sequences import Prepared
    from evaluation.likelihood.estimation import Plan
    from evaluation.reporting.report import Row
    from inference.runs import Run

    Figures = Mapping[str, NDArray[np.float64]]

__all__ = ["COLUMNS", "LABELS", "Outcome", "evaluate", "merged", "metric", "of_waveform", "table"]

WHAT = ("file", "speaker", "start", "frames")
OF = {
    "elbo": ("elbo", "elbo_analytic"),
    "iwae": ("iwae", "iwae_sd", "iwae_ess", "pareto_k"),
    "smc": ("smc", "smc_sd", "smc_ess"),
}
"""The columns of the CSV that each estimator fills; an _sd is over repeats."""
COLUMNS = (*WHAT, *(column for columns in OF.values() for column in columns))
LABELS = {
    "elbo": "ELBO, from samples",
    "elbo_analytic": "ELBO, analytic KL",
    "iwae": "importance-weighted",
    "smc": "particle filter",
}
FULL_SCALE = 2.0**15
"""Steps of 16-bit sound up to full scale."""
OF_DATA = ("corpus", "root", "split", "num_sequences", "num_frames", "sequences", "data_seed")
SAME = (*OF_DATA, "mode", "checkpoint", "step", "dtype", "overrides")
"""What must be the same for estimators of several commands to stand in one file."""


class Outcome(NamedTuple):
    """What an evaluation found: the report of `likelihood.json`, and a row of `likelihood.csv` per sequence."""

    report: dict[str, Any]
    rows: list[Row]


def evaluate(
    run: Run,
    request: Request,
    plan: Plan,
    sequences: Sequence[Prepared],
    *,
    cut: int | None = None,
    progress: bool = False,
) -> Outcome:
    """Estimate how likely sequences are.

    Args:
        run: the run.
        request: what was asked for, which the report repeats.
        plan: what to estimate; its mode and seed are the run's and the request's.
        sequences: the data.
        cut: frames of each sequence, if utterances were cut; None for whole ones.
        progress: draw a progress bar on standard error.
    """
    import numpy as np

    from evaluation.likelihood.estimation import estimate_all
    from evaluation.likelihood.reliability import K_LIMIT, warnings_of
    from evaluation.reporting.provenance import provenance

    about = provenance("likelihood", run, request._replace(latents="sample"))
    plan = replace(plan, mode=about["mode"], seed=run.settings.seed)
    figures = estimate_all(run, sequences, plan, progress=progress)
    frames = np.array([len(item.x) for item in sequences], dtype=float)
    how: dict[str, Any] = {"particles": plan.particles, "repeats": plan.repeats}
    of_filter = {"threshold": plan.threshold, "scheme": plan.scheme}
    doubts = warnings_of(figures, plan)
    metrics = {}
    for estimator in plan.estimators:
        for name in (column for column in OF[estimator] if column in LABELS):
            finite = np.isfinite(figures[name].mean(axis=0))
            unscored = [item.file for item, fine in zip(sequences, finite, strict=True) if not fine]
            settings = {**how, **(of_filter if name == "smc" else {})}
            more = {"warnings": doubts.get(name, []), "unscored": unscored}
            found = metric(figures[name], frames)
            metrics[name] = {**found, **of_waveform(run, found["per_frame"]), **settings, **more}
    report = {
        **about,
        "num_sequences": len(sequences),
        "num_frames": int(frames.sum()),
        "sequences": "whole utterances" if cut is None else f"sequences of {cut} frames",
        "metrics": metrics,
    }
    if "elbo" in plan.estimators:
        of_latents = {name: metric(figures[name], frames) for name in sorted(figures) if name.startswith("kl_")}
        report["kl"] = {
            name[3:]: {**found, **of_waveform(run, found["per_frame"], density=False)}
            for name, found in of_latents.items()
        }
    if "iwae" in plan.estimators:
        k = figures["pareto_k"].mean(axis=0)
        known = k[np.isfinite(k)]
        report["pareto_k"] = {
            "mean": float(known.mean()) if len(known) else None,
            "max": float(known.max()) if len(known) else None,
            "n": len(known),
            "infinite": int(np.isposinf(k).sum()),
            "limit": K_LIMIT,
            "above_limit": int((k > K_LIMIT).sum()),
        }
    return Outcome(report, list(_rows(figures, sequences, plan)))


def _rows(figures: Figures, sequences: Sequence[Prepared], plan: Plan) -> Iterator[Row]:
    """A row per sequence: of every figure the mean over repeats, and of estimates their deviation."""
    columns = [column for estimator in plan.estimators for column in OF[estimator]]
    for n, item in enumerate(sequences):
        row: dict[str, str | int | float] = {c: math.nan for c in columns}
        row |= {"file": item.file, "speaker": item.speaker, "start": item.start, "frames": len(item.x)}
        for column in columns:
            values = figures[column.removesuffix("_sd")][:, n]
            if column in figures:
                row[column] = float(values.mean())
            elif plan.repeats > 1:
                row[column] = float(values.std(ddof=1))
        yield row


def metric(values: NDArray[np.float64], frames: NDArray[np.float64]) -> dict[str, Any]:
    r"""Nats per sequence and per frame, with their standard errors over sequences, from estimates (R, N), frames (N,).

    Per frame in both normalisations: pooled, :math:`\sum_n L_n / \sum_n T_n` with the standard error of a ratio, under
    "per_frame"; the mean over sequences of :math:`L_n / T_n` under "per_frame_by_sequence". With repeats also the
    standard error that Monte Carlo alone gives the mean, and the variance of L_n over repeats.
    """
    import numpy as np

    from evaluation.reporting.report import Summary, summarise

    mean = values.mean(axis=0)
    finite = np.isfinite(mean)
    pooled = Summary(None, None, int(finite.sum()))
    if finite.any():
        total, t = mean[finite], frames[finite]
        rate = float(total.sum() / t.sum())
        error = summarise((total - rate * t).tolist()).stderr
        pooled = Summary(rate, None if error is None else error / float(t.mean()), len(t))
    found: dict[str, Any] = {
        **summarise(mean.tolist())._asdict(),
        "per_frame": pooled._asdict(),
        "per_frame_by_sequence": summarise((mean / frames).tolist())._asdict(),
    }
    if len(values) > 1 and finite.any():
        variance = values[:, finite].var(axis=0, ddof=1)
        found["monte_carlo_stderr"] = float(np.sqrt(variance.sum() / len(values)) / len(variance))
        found["variance_over_repeats"] = {"mean": float(variance.mean()), "max": float(variance.max())}
    return found


def of_waveform(run: Run, per_frame: Mapping[str, Any], *, density: bool = True) -> dict[str, Any]:
    r"""Nats per 8,000 samples, as papers on Blizzard 2013 count, and bits per sample, of frames of a waveform.

    Nats are of standardised samples y = (x - m) / s, without the change of variables. Bits are
    :math:`-\log_2 p(x) = -\log_2 p(y) + \log_2 s` with s in steps of 16-bit sound: a density of real numbers, and no
    length of a code, as no noise was added to the steps.

    Args:
        run: the run; of other frames than a waveform's nothing is returned.
        per_frame: nats per frame, as `metric` gives them.
        density: whether these are a log-density: a KL has no bits per sample here.
    """
    from corpora.frontends.waveform import SAMPLES

    width = run.settings.data.frame_width
    if width is None or per_frame["mean"] is None:
        return {}
    mean, stderr = per_frame["mean"], per_frame["stderr"]
    in_nats, in_bits = SAMPLES / width, 1.0 / (width * math.log(2.0))
    found: dict[str, Any] = {
        "per_8000_samples": {"mean": in_nats * mean, "stderr": None if stderr is None else in_nats * stderr}
    }
    if density:
        own = (run.model.scaling.log_scale() + width * math.log(FULL_SCALE) - mean) * in_bits
        found["bits_per_sample"] = {"mean": own, "stderr": None if stderr is None else in_bits * stderr}
    return found


def merged(outcome: Outcome, folder: Path) -> tuple[Outcome, str | None]:
    """With what an earlier command left in the folder, where that is of the same data and weights.

    Returns:
        The outcome to write, and, if an earlier one is not kept, why not.
    """
    from evaluation.reporting.report import read_json

    path, rows_path = folder / "likelihood.json", folder / "likelihood.csv"
    if not path.is_file() or not rows_path.is_file():
        return outcome, None
    try:
        old = read_json(path, "")
    except UserError:
        return outcome, f"{path} was not readable and is written anew"
    differ = [key for key in SAME if old.get(key) != outcome.report[key]]
    if differ:
        return outcome, f"{path} held estimates of other {', '.join(differ)}; it is written anew"
    metrics = {**old["metrics"], **outcome.report["metrics"]}
    in_order = {name: metrics[name] for name in LABELS if name in metrics}
    report = {**{k: v for k, v in old.items() if k in ("pareto_k", "kl")}, **outcome.report, "metrics": in_order}
    with rows_path.open(encoding="utf-8", newline="") as lines:
        earlier = {(row["file"], row["start"]): row for row in csv.DictReader(lines)}
    rows: list[Row] = [{**earlier.get((str(row["file"]), str(row["start"])), {}), **row} for row in outcome.rows]
    return Outcome(report, rows), None


def table(report: Mapping[str, Any]) -> str:
    """The report for the terminal."""
    from evaluation.reporting.report import Summary, text_table

    lines = []
    for name, found in report["metrics"].items():
        columns = [found, found["per_frame"], found["per_frame_by_sequence"]]
        texts = [Summary(c["mean"], c["stderr"], c["n"]).text(d) for c, d in zip(columns, (2, 3, 3), strict=True)]
        spread = found.get("monte_carlo_stderr")
        particles = f"{found['particles']}" + (f" x {found['repeats']}" if found["repeats"] > 1 else "")
        lines.append(
            [LABELS[name], *texts, *_waveform_texts(found), "" if spread is None else f"{spread:.3f}", particles]
        )
    more = ["per 8000 samples", "bits per sample"] if "bits_per_sample" in found else []
    header = [
        "log-likelihood, nats",
        "per sequence",
        "per frame, pooled",
        "by sequence",
        *more,
        "MC error",
        "particles",
    ]
    where = " ".join(str(report[k]) for k in ("corpus", "root") if report[k])
    return (
        f"{report['model']} (guide {report['guide']}, {report['parameters']:,} parameters), "
        f"{report['checkpoint']} at step {report['step']}\n"
        f"{report['num_sequences']} {report['sequences']} of {where}, split {report['split']}, "
        f"{report['num_frames']} frames; mode {report['mode']}\n\n" + text_table(header, lines) + _of_latents(report)
    )


def _waveform_texts(found: Mapping[str, Any]) -> list[str]:
    """Of frames of a waveform, the further columns of an estimate or of a KL."""
    from evaluation.reporting.report import Summary

    further = (("per_8000_samples", 1), ("bits_per_sample", 3))
    return [Summary(**found[name], n=0).text(decimals) for name, decimals in further if name in found]


def _of_latents(report: Mapping[str, Any]) -> str:
    """The KL of each latent, for the terminal."""
    from evaluation.reporting.report import Summary, text_table

    if not report.get("kl"):
        return ""
    lines = []
    for name, found in report["kl"].items():
        columns = [found, found["per_frame"], found["per_frame_by_sequence"]]
        texts = [Summary(c["mean"], c["stderr"], c["n"]).text(d) for c, d in zip(columns, (2, 3, 3), strict=True)]
        lines.append([name, *texts, *_waveform_texts(found)])
    more = ["per 8000 samples"] if "per_8000_samples" in found else []
    return "\n\n" + text_table(["KL, nats", "per sequence", "per frame, pooled", "by sequence", *more], lines)
