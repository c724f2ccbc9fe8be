"""Reports of likelihood estimates: figures, units, merging with earlier reports, and the table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpora.frontends.waveform import SAMPLES
from corpora.loading.sequences import Prepared
from evaluation.likelihood.estimation import Plan, estimate_all
from evaluation.likelihood.reliability import K_LIMIT, warnings_of
from evaluation.reporting.command_line import Request, say
from evaluation.reporting.comparability import DATA_KEYS, different_keys
from evaluation.reporting.outputs import Outputs
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import (
    CsvRow,
    Results,
    Summary,
    data_text,
    mode_text,
    model_text,
    summarise,
    text_table,
)
from inference.runs import Run

Figures = Mapping[str, NDArray[np.float64]]

__all__ = ["COLUMNS", "LABELS", "evaluate", "head_of", "mergeable", "merged", "metric", "table", "waveform_units"]

SEQUENCE = ("file", "speaker", "start", "frames")
ESTIMATOR_COLUMNS = {
    "elbo": ("elbo", "elbo_analytic"),
    "iwae": ("iwae", "iwae_sd", "iwae_ess", "pareto_k"),
    "smc": ("smc", "smc_sd", "smc_ess"),
}
"""Columns of the CSV by estimator; _sd is the standard deviation over repeats."""
COLUMNS = (*SEQUENCE, *(column for columns in ESTIMATOR_COLUMNS.values() for column in columns))
LABELS = {
    "elbo": "ELBO, from samples",
    "elbo_analytic": "ELBO, analytic KL",
    "iwae": "importance-weighted",
    "smc": "particle filter",
}
NORMALISATIONS = ("per sequence", "per frame, pooled", "by sequence")
WAVEFORM_UNITS = {"per_8000_samples": ("per 8000 samples", 1), "bits_per_sample": ("bits per sample", 3)}
"""Label and decimals of each unit of `waveform_units`."""
FULL_SCALE = 2.0**15
"""Quantisation steps of 16-bit sound up to full scale."""
SAME = (*DATA_KEYS, "num_frames", "sequences", "mode", "checkpoint", "step", "dtype", "overrides")
"""Keys that must agree for the estimates of two commands to be merged."""


def evaluate(
    run: Run,
    request: Request,
    plan: Plan,
    sequences: Sequence[Prepared],
    *,
    cut: int | None = None,
    progress: bool = False,
) -> Results:
    """Estimate the likelihood of sequences.

    Args:
        run: the run.
        request: the command line, which the report repeats.
        plan: what to estimate; its mode and seed are replaced by those of the request and the run.
        sequences: the data.
        cut: frames of each sequence, if utterances were cut; None for whole ones.
        progress: draw a progress bar on standard error.
    """
    head = head_of(run, request, sequences, cut=cut)
    plan = replace(plan, mode=head["mode"], seed=run.settings.seed)
    figures = estimate_all(run, sequences, plan, progress=progress)
    frames = np.array([len(item.x) for item in sequences], dtype=float)
    common: dict[str, Any] = {"particles": plan.particles, "repeats": plan.repeats}
    filtering = {"threshold": plan.threshold, "scheme": plan.scheme}
    warnings = warnings_of(figures, plan)
    metrics = {}
    for estimator in plan.estimators:
        for name in (column for column in ESTIMATOR_COLUMNS[estimator] if column in LABELS):
            finite = np.isfinite(figures[name].mean(axis=0))
            unscored = [item.file for item, fine in zip(sequences, finite, strict=True) if not fine]
            nats = metric(figures[name], frames)
            metrics[name] = {
                **nats,
                **waveform_units(run, nats["per_frame"]),
                **common,
                **(filtering if name == "smc" else {}),
                "warnings": warnings.get(name, []),
                "unscored": unscored,
            }
    report = {**head, "metrics": metrics}
    if "elbo" in plan.estimators:
        kl = {name[3:]: metric(figures[name], frames) for name in sorted(figures) if name.startswith("kl_")}
        report["kl"] = {
            latent: {**nats, **waveform_units(run, nats["per_frame"], density=False)} for latent, nats in kl.items()
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
    return Results(report, list(_rows(figures, sequences, plan)))


def head_of(run: Run, request: Request, sequences: Sequence[Prepared], *, cut: int | None = None) -> dict[str, Any]:
    """The keys of the report that say what is estimated: provenance and data."""
    return {
        **provenance("likelihood", run, request._replace(latents="sample")),
        "num_sequences": len(sequences),
        "num_frames": sum(len(item.x) for item in sequences),
        "sequences": "whole utterances" if cut is None else f"sequences of {cut} frames",
    }


def _rows(figures: Figures, sequences: Sequence[Prepared], plan: Plan) -> Iterator[CsvRow]:
    """A row for each sequence: means over repeats of all figures, and standard deviations of the estimates."""
    columns = [column for estimator in plan.estimators for column in ESTIMATOR_COLUMNS[estimator]]
    for n, item in enumerate(sequences):
        row: CsvRow = {c: math.nan for c in columns}
        row |= {"file": item.file, "speaker": item.speaker, "start": item.start, "frames": len(item.x)}
        for column in columns:
            values = figures[column.removesuffix("_sd")][:, n]
            if column in figures:
                row[column] = float(values.mean())
            elif plan.repeats > 1:
                row[column] = float(values.std(ddof=1))
        yield row


def metric(values: NDArray[np.float64], frames: NDArray[np.float64]) -> dict[str, Any]:
    r"""Nats per sequence and per frame, with standard errors over sequences.

    There are two normalisations per frame: the pooled :math:`\sum_n L_n / \sum_n T_n` with the standard error of a
    ratio, under "per_frame", and the mean over sequences of :math:`L_n / T_n`, under "per_frame_by_sequence". With
    repeats there are also the Monte Carlo standard error of the mean and the variance of L_n over repeats.

    Args:
        values: estimates (R, N).
        frames: lengths (N,).
    """
    mean = values.mean(axis=0)
    finite = np.isfinite(mean)
    pooled = Summary(None, None, int(finite.sum()))
    if finite.any():
        total, t = mean[finite], frames[finite]
        rate = float(total.sum() / t.sum())
        error = summarise((total - rate * t).tolist()).stderr
        pooled = Summary(rate, None if error is None else error / float(t.mean()), len(t))
    figures: dict[str, Any] = {
        **summarise(mean.tolist())._asdict(),
        "per_frame": pooled._asdict(),
        "per_frame_by_sequence": summarise((mean / frames).tolist())._asdict(),
    }
    if len(values) > 1 and finite.any():
        variance = values[:, finite].var(axis=0, ddof=1)
        figures["monte_carlo_stderr"] = float(np.sqrt(variance.sum() / len(values)) / len(variance))
        figures["variance_over_repeats"] = {"mean": float(variance.mean()), "max": float(variance.max())}
    return figures


def waveform_units(run: Run, per_frame: Mapping[str, Any], *, density: bool = True) -> dict[str, Any]:
    r"""Nats per 8,000 samples, the unit of papers on Blizzard 2013, and bits per sample, of frames of a waveform.

    Nats are those of the standardised samples y = (x - m) / s, without the change of variables. Bits are
    :math:`-\log_2 p(x) = -\log_2 p(y) + \log_2 s` with s in steps of 16-bit sound. They are a density and not a code
    length, since no dequantisation noise was added.

    Args:
        run: the run; the result is empty if its frames are not those of a waveform.
        per_frame: nats per frame, from `metric`.
        density: whether these are a log-density; a KL has no bits per sample.
    """
    width = run.settings.data.frame_width
    if width is None or per_frame["mean"] is None:
        return {}
    mean, stderr = per_frame["mean"], per_frame["stderr"]

    def scaled(value: float, factor: float) -> dict[str, float | None]:
        return {"mean": value * factor, "stderr": None if stderr is None else stderr * factor}

    units = {"per_8000_samples": scaled(mean, SAMPLES / width)}
    if density:
        negative = run.model.scaling.log_scale() + width * math.log(FULL_SCALE) - mean
        units["bits_per_sample"] = scaled(negative, 1.0 / (width * math.log(2.0)))
    return units


def mergeable(outputs: Outputs, head: Mapping[str, Any], plan: Plan) -> dict[str, Any] | None:
    """The report of an earlier command that is kept beside the new estimates: of the same data and weights.

    Args:
        outputs: where the report is.
        head: from `head_of`.
        plan: what is to be estimated.

    Raises:
        UserError: estimates of another command would be lost, and there is no ``--force``.
    """
    earlier = outputs.earlier()
    if earlier is None or not outputs.csv.is_file():
        return None
    differ = different_keys(head, earlier, SAME)
    if differ:
        outputs.refuse_overwriting()
        say(f"{outputs.json} contained estimates with other {', '.join(differ)} and is replaced")
        return None
    options = {"particles": plan.particles, "repeats": plan.repeats, "threshold": plan.threshold, "scheme": plan.scheme}
    again = [earlier["metrics"][name] for name in plan.estimators if name in earlier["metrics"]]
    if any(different_keys(options, figures, [key for key in options if key in figures]) for figures in again):
        outputs.refuse_overwriting()
    return earlier


def merged(results: Results, earlier: Mapping[str, Any], earlier_csv: Path) -> Results:
    """Merge results with those of an earlier command.

    Args:
        results: the new results, which take precedence.
        earlier: the earlier report.
        earlier_csv: its rows.
    """
    metrics = {**earlier["metrics"], **results.report["metrics"]}
    in_order = {name: metrics[name] for name in LABELS if name in metrics}
    kept: dict[str, Any] = {key: earlier[key] for key in ("pareto_k", "kl") if key in earlier}
    with earlier_csv.open(encoding="utf-8", newline="") as lines:
        earlier_rows = {(row["file"], row["start"]): row for row in csv.DictReader(lines)}
    rows: list[CsvRow] = [{**earlier_rows.get((str(r["file"]), str(r["start"])), {}), **r} for r in results.rows]
    return Results({**kept, **results.report, "metrics": in_order}, rows)


def table(report: Mapping[str, Any]) -> str:
    """The report for the terminal."""
    lines, header = [], ["log-likelihood, nats", *NORMALISATIONS]
    for name, figures in report["metrics"].items():
        spread = figures.get("monte_carlo_stderr")
        particles = f"{figures['particles']}" + (f" x {figures['repeats']}" if figures["repeats"] > 1 else "")
        lines.append([LABELS[name], *_texts(figures), "" if spread is None else f"{spread:.3f}", particles])
    header += [*_waveform_columns(figures), "MC error", "particles"]
    kl = ""
    if report.get("kl"):
        rows = [[latent, *_texts(figures)] for latent, figures in report["kl"].items()]
        columns = _waveform_columns(next(iter(report["kl"].values())))
        kl = "\n\n" + text_table(["KL, nats", *NORMALISATIONS, *columns], rows)
    return (
        f"{model_text(report)}\n{report['num_sequences']} {report['sequences']} of {data_text(report)}, "
        f"{report['num_frames']} frames{mode_text(report)}\n\n" + text_table(header, lines) + kl
    )


def _texts(figures: Mapping[str, Any]) -> list[str]:
    """An estimate or a KL in each normalisation and unit."""
    columns = ((figures, 2), (figures["per_frame"], 3), (figures["per_frame_by_sequence"], 3))
    texts = [Summary(c["mean"], c["stderr"], c["n"]).text(decimals) for c, decimals in columns]
    units = [(figures[unit], decimals) for unit, (_, decimals) in WAVEFORM_UNITS.items() if unit in figures]
    return [*texts, *(Summary(**values, n=0).text(decimals) for values, decimals in units)]


def _waveform_columns(figures: Mapping[str, Any]) -> list[str]:
    return [label for unit, (label, _) in WAVEFORM_UNITS.items() if unit in figures]
