"""The work of `evaluation.verification`: from embeddings to error rates, the report, the table and the picture."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpora.types import Corpus
from dvae_pyro.errors import UserError
from evaluation.disentanglement.embeddings import Embeddings
from evaluation.reporting.command_line import Request, say
from evaluation.reporting.comparability import DATA_KEYS, different_keys
from evaluation.reporting.outputs import Outputs, outputs_of
from evaluation.reporting.provenance import data_head
from evaluation.reporting.report import Summary, data_text, text_table
from evaluation.verification.det import det_curves
from evaluation.verification.lda import project, why_not
from evaluation.verification.systems import SYSTEMS, Source
from evaluation.verification.trials import (
    Rates,
    all_pairs,
    bootstrap_error,
    cosine_scores,
    equal_error_rate,
    error_rates,
)
from inference.settings.tree import Settings

__all__ = ["LDA_DIMS", "SystemResult", "evaluate", "merged", "run_verification", "table"]

LDA_DIMS = (12, 24)
SCORINGS: dict[str, int | None] = {"raw": None, **{f"lda{dims}": dims for dims in LDA_DIMS}}
"""Dimensions of LDA by the name of a scoring; None for embeddings as they are."""
SIZES = {name: name for name in ("components", "covariance", "cmn")} | {
    "dim": "ivector_dim",
    "iterations": "em_iterations",
}
"""Options of `IVectorOptions` by field."""
FEW_SPEAKERS = 10
"""Number of speakers below which a standard error is inaccurate."""
PARTS = 2
"""Parts of a training utterance whose speaker has no other utterance."""


class SystemResult(NamedTuple):
    """Error rates of one system's embeddings.

    Attributes:
        eer: equal error rate by kind of vector, then by scoring; None where it is undefined.
        stderr: its standard error over speakers; None for a rate of 0, for which the bootstrap gives no estimate.
        missing: the reason why a rate is undefined.
        dims: dimension L of the vectors, by kind.
        rates: error rates at all thresholds by kind and scoring, for the picture.
        trials: numbers of trials, targets, utterances and speakers.
        notes: remarks for the user.
    """

    eer: dict[str, dict[str, float | None]]
    stderr: dict[str, dict[str, float | None]]
    missing: dict[str, dict[str, str]]
    dims: dict[str, int]
    rates: dict[str, dict[str, Rates]]
    trials: dict[str, int]
    notes: list[str]


def run_verification(request: Request, options: argparse.Namespace) -> None:
    """Evaluate a system, write ``verification.json`` and the picture, and print the table.

    Raises:
        UserError: sizes of i-vectors are given for another system.
    """
    name = options.system
    given = {size: getattr(options, option, None) for size, option in SIZES.items()}
    sizes = {size: value for size, value in given.items() if value is not None}
    if name != "ivector" and sizes:
        option = SIZES[next(iter(sizes))].replace("_", "-")
        raise UserError(f"--{option} has no effect with --system {name}: omit it.")
    settings, corpus, source, description = SYSTEMS[name](request, sizes)
    outputs = outputs_of("verification", request, settings, merges=True)
    earlier = _earlier(outputs, {"system": name, **description})
    result = evaluate(source, corpus, request.split)
    for note in corpus.notes.get(request.split, []):
        say(note)
    report = merged(report_of(settings, corpus, request, {"system": name, **description}, result), earlier)
    drawn = (
        outputs
        if name == "fhvae"
        else outputs._replace(stem=outputs.stem.replace("verification", f"verification_{name}"))
    )
    heading = f"{request.run.name}, split {request.split} of {report['corpus']}: {report['trials']:,} trials"
    drawn.draw(det_curves(result.rates, result.eer, heading))
    outputs.write(report)
    print(table(report))
    for kind, reasons in report["missing"].items():
        say(f"{kind}: none for {'; '.join(reasons.values())}")
    for note in report["notes"]:
        say(note)
    say(f"wrote {outputs.json} and {drawn.picture}")


def _earlier(outputs: Outputs, description: dict[str, Any]) -> dict[str, Any] | None:
    """An earlier report, to which the results of another system are added.

    Raises:
        UserError: it has other results of the same system, and there is no ``--force``.
    """
    earlier = outputs.earlier()
    same = [entry for entry in (earlier or {}).get("systems", {}).values() if entry["system"] == description["system"]]
    of = {**outputs.key, "overrides": list(outputs.request.overrides)}
    if any({**entry, **description} != entry for entry in same) or different_keys(earlier or of, of, of):
        outputs.refuse_overwriting()
    return earlier


def evaluate(source: Source, corpus: Corpus, split: str) -> SystemResult:
    """Compute the equal error rates of a system's embeddings on the trials of a split.

    Args:
        source: computes embeddings of a split.
        corpus: contains split train and `split`, of which the speakers are read.
        split: split of the trials.
    """
    utterances = Counter(utterance.speaker for utterance in corpus.splits["train"])
    test = source(split, 1)
    trials = all_pairs(test.speakers)
    speakers = len(set(test.speakers))
    counts = {"trials": len(trials.target), "targets": int(trials.target.sum())}
    counts |= {"utterances": len(test.files), "speakers": speakers}
    result = SystemResult({}, {}, {}, {}, {}, counts, _notes(utterances, split, speakers))
    train = _training(source, utterances)
    for kind, vectors in test.vectors.items():
        result.dims[kind] = vectors.shape[1]
        for by_kind in (result.eer, result.stderr, result.missing, result.rates):
            by_kind[kind] = {}
        for scoring, dims in SCORINGS.items():
            projected, reason = _projected(kind, train, vectors, dims)
            result.eer[kind][scoring] = result.stderr[kind][scoring] = None
            if projected is None:
                result.missing[kind][scoring] = reason
                continue
            scores = cosine_scores(projected, trials)
            rates = error_rates(scores, trials.target)
            result.rates[kind][scoring] = rates
            result.eer[kind][scoring] = equal_error_rate(rates)
            if result.eer[kind][scoring]:
                result.stderr[kind][scoring] = bootstrap_error(scores, trials)
    return result


def _training(source: Source, utterances: Counter[str]) -> Embeddings:
    """Embeddings for LDA: of whole training utterances, and of parts of them for speakers with one utterance."""
    single = {speaker for speaker, count in utterances.items() if count < 2}
    groups = []
    for parts, speakers in ((1, set(utterances) - single), (PARTS, single)):
        if speakers:
            embedded = source("train", parts)
            kept = [n for n, speaker in enumerate(embedded.speakers) if speaker in speakers]
            vectors = {kind: values[kept] for kind, values in embedded.vectors.items()}
            groups.append(Embeddings(vectors, [embedded.files[n] for n in kept], [embedded.speakers[n] for n in kept]))
    return Embeddings(
        {kind: np.concatenate([group.vectors[kind] for group in groups]) for kind in groups[0].vectors},
        [file for group in groups for file in group.files],
        [speaker for group in groups for speaker in group.speakers],
    )


def _projected(
    kind: str, train: Embeddings, vectors: NDArray[np.float64], dims: int | None
) -> tuple[NDArray[np.float64] | None, str]:
    """The vectors of the test as they are scored; or None, and the reason."""
    if dims is None:
        return vectors, ""
    reason = why_not(dims, vectors.shape[1], train.speakers)
    if reason is not None:
        return None, reason
    projected = project(train.vectors[kind], train.speakers, vectors, dims)
    return projected, f"LDA to {dims} dimensions: the training embeddings span fewer"


def _notes(utterances: Counter[str], split: str, speakers: int) -> list[str]:
    notes = []
    single = sum(count < 2 for count in utterances.values())
    if single:
        notes.append(
            f"{single} of {len(utterances)} training speakers have one utterance, so LDA is fitted on {PARTS} parts of "
            "these: its variance within speakers is that within utterances"
        )
    if split == "train":
        notes.append("LDA is fitted on split train, which is also that of the trials: its error rates are optimistic")
    if speakers < FEW_SPEAKERS:
        notes.append(f"{speakers} speakers in the trials: the standard errors are inaccurate")
    return notes


def report_of(
    settings: Settings, corpus: Corpus, request: Request, description: dict[str, Any], result: SystemResult
) -> dict[str, Any]:
    """The report, ``verification.json``."""
    return {
        **data_head("verification", request.run, corpus, request.split),
        "num_sequences": result.trials["utterances"],
        "seed": settings.seed,
        "data_seed": settings.data.seed,
        "overrides": list(request.overrides),
        "scoring": "cosine",
        **{key: result.trials[key] for key in ("trials", "targets", "speakers")},
        "eer": result.eer,
        "stderr": result.stderr,
        "missing": {kind: reasons for kind, reasons in result.missing.items() if reasons},
        "systems": {kind: {**description, "dim": dim} for kind, dim in result.dims.items()},
        "notes": result.notes,
    }


def merged(report: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """The report, with the results of an earlier one for other embeddings on the same trials."""
    if earlier is None or different_keys(report, earlier, (*DATA_KEYS, "trials", "targets", "speakers")):
        return report
    by_kind = {key: {**earlier.get(key, {}), **report[key]} for key in ("eer", "stderr", "systems")}
    kept = {kind: reasons for kind, reasons in earlier.get("missing", {}).items() if kind not in report["eer"]}
    notes = [*report["notes"], *(note for note in earlier.get("notes", []) if note not in report["notes"])]
    return {**report, **by_kind, "missing": {**kept, **report["missing"]}, "notes": notes}


def table(report: dict[str, Any]) -> str:
    """The report for the terminal, rates in per cent."""
    rows = []
    for kind, rates in report["eer"].items():
        figures = [Summary(rates[name], report["stderr"][kind][name], 0).text(2, 100.0) for name in SCORINGS]
        rows.append([kind, str(report["systems"][kind]["dim"]), *figures])
    header = ["EER in %", "dim", "raw", *(f"LDA {dims}" for dims in LDA_DIMS)]
    return (
        f"{report['trials']:,} trials, {report['targets']:,} of them targets: all pairs of {report['num_sequences']} "
        f"utterances of {report['speakers']} speakers\n{data_text(report)}; cosine scoring\n\n"
        + text_table(header, rows)
    )
