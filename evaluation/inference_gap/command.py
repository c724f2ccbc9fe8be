"""The work of `evaluation.inference_gap`: bounds of each run, gaps, reports and the table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import pyro

from dvae_pyro.errors import UserError
from evaluation.inference_gap.gaps import Effort, Gaps, gaps, measure, same_model
from evaluation.inference_gap.plot import gap_picture
from evaluation.loading.splits import read_sequences
from evaluation.reporting.command_line import Request, check_minimum, open_run, say
from evaluation.reporting.comparability import check_same_data, run_names
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import Summary, summarise, text_table, write_json
from guides.registry import compare
from inference.estimation.individual_normal import check_model
from inference.runs import Run, device_text

__all__ = ["report_of", "run_inference_gap", "table"]

COMPARISON = {
    True: "all runs have the same model and weights: guides are compared, and log p(x) is the best bound of all runs",
    False: "models or weights differ: each guide's gaps are to the log p(x) of its own model",
}
"""What the figures of several runs mean, by whether the runs have the same model."""

POINT_MASS = (
    "q(mu2) is a point mass and has no density: the column log p(x) estimates log p(x, mu2) with every segment as a "
    "sequence of its own, and is not a bound on log p(x)"
)
"""Note on guides that infer a point for the latent that the segments of a sequence share."""

COLUMNS = {
    "elbo": "ELBO",
    "iwae": "IWAE",
    "smc": "SMC",
    "refined_elbo": "ELBO refined",
    "auto_normal_elbo": "ELBO auto-normal",
    "log_evidence": "log p(x) >=",
    "approximation_gap": "approximation",
    "amortisation_gap": "amortisation",
    "auto_normal_gap": "auto-normal",
}


def run_inference_gap(request: Request, options: argparse.Namespace) -> None:
    """Evaluate runs, write ``inference_gap.json`` in each run folder, and print the table.

    Raises:
        UserError: a number is out of range, the runs are not of the same data, or ``--guide`` does not fit a model.
    """
    check_minimum(options, particles=1, refinement_steps=1, sequences=1, chunk=1)
    if not options.lr > 0:
        raise UserError(f"--lr {options.lr}: expected a number above 0.")
    effort = Effort(options.particles, options.refinement_steps, options.lr, options.chunk)
    runs = [open_run(request._replace(run=folder)) for folder in options.runs]
    check_same_data({run.path: run.settings for run in runs})
    auto_normal = options.guide is not None
    for run in runs if auto_normal else []:
        check_model(run.model)
    single = [request._replace(run=run.path, json=None) for run in runs]  # --json gets all reports in one
    outputs = [outputs_of("inference_gap", one, run.settings) for one, run in zip(single, runs, strict=True)]
    names = run_names(options.runs)
    one_model = same_model(runs)
    mode = request.mode or runs[0].settings.evaluation.mode
    sequences = read_sequences(runs[0], request.split, options.sequences)
    bounds = []
    with pyro.validation_enabled(False):
        for name, run in zip(names, runs, strict=True):
            device = device_text(run.settings.device)
            say(f"{name}: {run.checkpoint_path.name}, step {run.state['step']}; device {device}")
            bounds.append(measure(run, sequences, effort, mode, auto_normal=auto_normal))
    results = gaps(bounds, one_model)
    reports = [report_of(run, request, gap, effort, mode, one_model) for run, gap in zip(runs, results, strict=True)]
    for out, report in zip(outputs, reports, strict=True):
        out.write(report)
    print(table(reports, names))
    for name, gap, report in zip(names, results, reports, strict=True):
        if count := int((gap.amortisation == 0).sum()):
            say(f"{name}: refinement did not improve {count} of {len(sequences)} sequences: use a lower --lr")
        if report["metrics"]["approximation_gap"]["mean"] < 0:
            say(f"{name}: the refined ELBO is above every estimate of log p(x): use more --particles")
    if request.json is not None:
        write_json(request.json, {"evaluation": "inference_gap", "runs": dict(zip(names, reports, strict=True))})
    outputs[0]._replace(request=request).draw(gap_picture(reports, names, COMPARISON[one_model]))
    say(f"wrote {', '.join(str(out.json) for out in outputs)} and {outputs[0].picture}")


def report_of(run: Run, request: Request, gap: Gaps, effort: Effort, mode: str, one_model: bool) -> dict[str, Any]:
    """The report of one run, ``inference_gap.json`` in its folder."""
    figures = {name: value for name, value in gap.bounds._asdict().items() if value is not None}
    figures |= {"log_evidence": gap.log_evidence, "approximation_gap": gap.approximation}
    figures |= {"amortisation_gap": gap.amortisation}
    figures |= {} if gap.auto_normal is None else {"auto_normal_gap": gap.auto_normal}
    verdicts = compare(run.settings.model, run.settings.guide.name)
    return {
        **provenance("inference_gap", run, request._replace(mode=mode, latents="sample")),
        "num_sequences": len(gap.log_evidence),
        "verdict": {latent: verdict.word for latent, verdict in verdicts.items()},
        "same_model": one_model,
        "log_evidence_from": gap.best,
        "note": POINT_MASS if run.model.hierarchical else None,
        **effort._asdict(),
        "metrics": {name: summarise(value.tolist())._asdict() for name, value in figures.items()},
    }


def table(reports: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The reports as one table for the terminal."""
    columns = {c: title for c, title in COLUMNS.items() if "auto" not in c or c in reports[0]["metrics"]}
    rows = []
    for name, report in zip(names, reports, strict=True):
        figures = report["metrics"]
        row = [name, report["guide"], "/".join(dict.fromkeys(report["verdict"].values()))]
        rows.append([*row, *(Summary(**figures[c]).text(2) if c in figures else "none" for c in columns)])
    first = reports[0]
    return (
        f"{first['model']} on {first['corpus']}, split {first['split']}: {first['num_sequences']} sequences, "
        f"{first['particles']} particles, {first['steps']} steps of refinement\n"
        + COMPARISON[bool(first["same_model"])]
        + "\n\n"
        + text_table(["run", "guide", "conditions on", *columns.values()], rows)
        + "\n\nnats per frame, mean ± standard error over sequences"
        + "".join(f"\n{note}" for note in dict.fromkeys(report["note"] for report in reports) if note)
    )
