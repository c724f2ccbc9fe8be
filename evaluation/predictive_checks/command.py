"""The work of `evaluation.predictive_checks`: replicate, report, print and draw."""

from __future__ import annotations

import argparse

from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from evaluation.loading.splits import read_utterances
from evaluation.predictive_checks.checks import check, report_of, table
from evaluation.predictive_checks.plots import check_picture
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.provenance import autoregressive, caption

__all__ = ["run_predictive_checks"]


def run_predictive_checks(request: Request, options: argparse.Namespace) -> None:
    """Check a run, write ``predictive_checks.json``, and print the table.

    Raises:
        UserError: a number is out of range, or the data of the run are not power spectra.
    """
    check_minimum(options, particles=20, sequences=1)  # 20 for quantiles of 5 %
    run = read_run(request)
    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    if not isinstance(frontend, Stft):
        raise UserError(
            f"{run.path} has data.frontend={run.settings.data.frontend}: energy, tilt and pauses are computed from "
            "power spectra.\nGive a run with data.frontend=stft."
        )
    mode = request.mode or run.settings.evaluation.mode
    outputs = outputs_of("predictive_checks", request, run.settings)
    sequences = read_utterances(run, request.split, options.sequences)
    replicated = check(run, sequences, options.particles, rate=frontend.rate, hop=frontend.hop, mode=mode)
    report = report_of(run, request, replicated, options.particles, mode)
    outputs.write(report)
    print(table(report))
    print("\np = P(replicated > observed); a value near 0 or 1 means that the model does not generate such data")
    if autoregressive(run) and mode == "gt":
        print("in x ~ p(x|z) each frame is given the true past, a weaker check than --mode gen")
    heading = f"{caption(run)}: {table(report).splitlines()[0].partition(': ')[2]}"
    outputs.draw(check_picture(replicated, [item.file for item in sequences], heading))
    say(f"wrote {outputs.names('png')}")
