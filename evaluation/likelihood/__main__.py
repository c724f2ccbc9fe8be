"""How likely held-out data is: ``python -m evaluation.likelihood RUN --estimator elbo iwae smc --particles K``.

Every whole utterance of a split is a sequence, as in resynthesis (``--cut``: the sequences that training sees). Leaves
``likelihood.json`` and ``likelihood.csv`` in the run folder; estimators asked for in successive commands are put
together there, as long as the data and the weights are the same. Estimates are log-likelihoods in nats: higher is
better.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError, nearest
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from evaluation.likelihood.estimation import Plan

__all__ = ["main"]

ESTIMATORS = ("elbo", "iwae", "smc")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("likelihood", "Estimate how likely a split is.")
    add = parser.add_argument
    add("--estimator", default="elbo,iwae,smc", metavar="E", help="elbo, iwae, smc, or several (default: all)")
    add("--particles", type=int, default=100, metavar="K", help="draws of the guide (default: %(default)s)")
    add("--chunk", type=int, metavar="C", help="draws of sequences computed together: less memory, same results")
    add("--repeats", type=int, default=1, metavar="R", help="independent estimates of each sequence, for the spread")
    add("--threshold", type=float, default=0.5, help="smc resamples below this share of K (default: %(default)s)")
    add("--scheme", default="systematic", help="how smc resamples: systematic, stratified, multinomial")
    add("--cut", action="store_true", help="cut utterances to the sequences that training sees, not whole ones")
    add("--picture", type=Path, metavar="FILE", help="draw how the estimates fare as sequences grow longer")

    def command() -> None:
        request, given = parse(parser, _joined(sys.argv[1:] if argv is None else argv))
        _command(request, _plan(given, request), cut=given.cut, picture=given.picture)

    return guarded(command)


def _joined(argv: Sequence[str]) -> list[str]:
    """``--estimator elbo iwae`` as one argument, so that what follows is not taken for an estimator."""
    found: list[str] = []
    listing = False
    for word in argv:
        if listing and word in ESTIMATORS:
            found[-1] += f",{word}"
            continue
        listing = bool(found) and found[-1] == "--estimator"
        found.append(word)
    return found


def _plan(given: Any, request: Request) -> Plan:
    from evaluation.likelihood.estimation import Plan
    from inference.particles.resampling import SCHEMES

    names = [name for name in given.estimator.split(",") if name]
    for name in names:
        if name not in ESTIMATORS:
            raise UserError(f"unknown --estimator '{name}'.{nearest(name, ESTIMATORS)} Known: {', '.join(ESTIMATORS)}.")
    for option in ("particles", "repeats", "chunk"):
        value = getattr(given, option)
        if value is not None and value < 1:
            raise UserError(f"--{option} {value}: expected at least 1.")
    if not 0.0 <= given.threshold <= 1.0:
        raise UserError(f"--threshold {given.threshold}: expected a share of the particles, from 0 (never) to 1.")
    if given.scheme not in SCHEMES:
        raise UserError(
            f"unknown --scheme '{given.scheme}'.{nearest(given.scheme, SCHEMES)} Known: {', '.join(SCHEMES)}."
        )
    if request.latents == "mean":
        raise UserError("--latents mean: likelihoods are estimated from samples of the guide. Leave --latents out.")
    chosen = tuple(name for name in ESTIMATORS if name in names)
    return Plan(chosen, given.particles, given.repeats, given.chunk, given.threshold, given.scheme)


def _command(request: Request, plan: Plan, *, cut: bool, picture: Path | None) -> None:
    run = open_run(request)
    if run.model.segment is not None and not cut:
        raise UserError(
            f"model '{run.settings.model.name}' of {run.path} takes segments of {run.model.segment} frames, not whole "
            "utterances. Estimate how likely segments are, each on its own: add --cut."
        )
    if run.model.hierarchical:
        say("segments are taken as sequences of their own, and its guide has a point for what they share: see the docs")
    from corpora.frontends.registry import open_frontend
    from corpora.loading.sequences import load_split
    from corpora.registry import open_corpus
    from evaluation.likelihood.report import COLUMNS, LABELS, evaluate, merged, table
    from evaluation.reporting.report import write_csv, write_json

    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    data = run.settings.data
    frames = data.sequence_frames if cut else None
    corpus = open_corpus(data, data.seed, needed=[request.split])
    frontend = open_frontend(data, run.settings.model.bins)
    sequences = load_split(corpus, request.split, frontend, data, say, cut=cut)
    outcome, why = merged(evaluate(run, request, plan, sequences, cut=frames, progress=True), run.path)
    write_json(run.path / "likelihood.json", outcome.report)
    write_csv(run.path / "likelihood.csv", COLUMNS, ({c: math.nan for c in COLUMNS} | {**row} for row in outcome.rows))
    if request.json is not None:
        write_json(request.json, outcome.report)
    print(table(outcome.report))
    for name, found in outcome.report["metrics"].items():
        for sentence in found["warnings"]:
            print(f"Beware: {sentence}")
        if found["unscored"]:
            print(
                f"{LABELS[name]}: not finite in {len(found['unscored'])} sequences: {', '.join(found['unscored'][:10])}"
            )
    if plan.repeats == 1 and "smc" in plan.estimators:
        say("how far smc varies is not known from one estimate: --repeats 5 tells")
    if why is not None:
        say(why)
    say(f"wrote {run.path / 'likelihood.json'} and {run.path / 'likelihood.csv'}")
    if picture is not None:
        from evaluation.likelihood.by_length import over_time, picture_over_time
        from evaluation.reporting.plots import save_picture

        plan = replace(plan, mode=outcome.report["mode"], seed=run.settings.seed)
        save_picture(picture_over_time(over_time(run, sequences, plan, progress=True), plan), picture)
        say(f"wrote {picture}")


if __name__ == "__main__":
    sys.exit(main())
