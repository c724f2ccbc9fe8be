"""The work of `evaluation.likelihood`: check the plan, estimate, merge with earlier estimates, write and print."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from dvae_pyro.errors import UserError, nearest
from evaluation.likelihood.by_length import estimate_by_length, length_picture
from evaluation.likelihood.estimation import ESTIMATORS, Plan
from evaluation.likelihood.report import COLUMNS, LABELS, evaluate, head_of, mergeable, merged, table
from evaluation.loading.splits import corpus_of, read_split
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.plots import save_picture
from evaluation.reporting.provenance import caption
from inference.particles.resampling import SCHEMES

__all__ = ["run_likelihood"]


def run_likelihood(request: Request, options: argparse.Namespace) -> None:
    """Evaluate a run, write ``likelihood.json`` and ``likelihood.csv``, and print the table."""
    plan = _plan(options)
    run = read_run(request)
    if run.model.segment is not None and not options.cut:
        raise UserError(
            f"model '{run.settings.model.name}' of {run.path} is a model of segments of {run.model.segment} frames, "
            "not of whole utterances. Add --cut to estimate the likelihood of each segment."
        )
    if run.model.hierarchical:
        say("each segment is a sequence of its own, and q(mu2) is a point mass: see docs/explanation/likelihood.md")
    outputs = outputs_of("likelihood", request, run.settings, merges=True)
    sequences = read_split(run, corpus_of(run.settings, request.split), request.split, cut=options.cut)
    frames = run.settings.data.sequence_frames if options.cut else None
    earlier = mergeable(outputs, head_of(run, request, sequences, cut=frames), plan)
    results = evaluate(run, request, plan, sequences, cut=frames, progress=True)
    if earlier is not None:
        results = merged(results, earlier, outputs.csv)
    report = results.report
    outputs.write(report, COLUMNS, ({c: math.nan for c in COLUMNS} | row for row in results.rows))
    print(table(report))
    for name, figures in report["metrics"].items():
        for warning in figures["warnings"]:
            print(f"warning: {warning}")
        if files := figures["unscored"]:
            print(f"{LABELS[name]}: not finite in {len(files)} sequences: {', '.join(files[:10])}")
    if plan.repeats == 1 and "smc" in plan.estimators:
        say("one estimate gives no variance of smc: add --repeats 5")
    say(f"wrote {outputs.names('csv')}")
    if options.picture is not None:
        plan = replace(plan, mode=report["mode"], seed=run.settings.seed)
        measured = estimate_by_length(run, sequences, plan, progress=True)
        save_picture(length_picture(measured, plan, caption(run)), options.picture)
        say(f"wrote {options.picture}")


def _plan(options: argparse.Namespace) -> Plan:
    """The plan that the command line describes.

    Raises:
        UserError: an unknown name, or a number out of range.
    """
    names = [name for name in options.estimator.split(",") if name]
    for option, values, known in (("estimator", names, ESTIMATORS), ("scheme", [options.scheme], tuple(SCHEMES))):
        for value in values:
            if value not in known:
                raise UserError(f"unknown --{option} '{value}'.{nearest(value, known)} Known: {', '.join(known)}.")
    check_minimum(options, particles=1, repeats=1, chunk=1)
    if not 0.0 <= options.threshold <= 1.0:
        raise UserError(f"--threshold {options.threshold}: expected a share of the particles, from 0 (never) to 1.")
    chosen = tuple(name for name in ESTIMATORS if name in names)
    return Plan(chosen, options.particles, options.repeats, options.chunk, options.threshold, options.scheme)
