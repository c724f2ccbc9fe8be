"""Speaker verification: ``python -m evaluation.verification RUN [--system fhvae|ivector]``.

Compare all pairs of utterances of a split by the cosine of their embeddings, raw and after linear discriminant analysis
(LDA) fitted on split train, and report the equal error rate (`evaluation.verification.trials`): of the s-vectors of an
FHVAE (mu2, and mu1, which should tell little), or of i-vectors (`evaluation.verification.ivector.pipeline`) on the same
trials. Leaves ``verification.json`` and a picture of the error trade-off in the run folder.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, parse, say
from evaluation.verification.systems import SYSTEMS

if TYPE_CHECKING:
    from corpora.types import Corpus
    from evaluation.verification.systems import Source
    from evaluation.verification.trials import Embedded, Rates
    from inference.settings.tree import Settings

__all__ = ["LDA_DIMS", "Found", "evaluate", "main", "merged", "table"]

LDA_DIMS = (12, 24)
FEW = 10  # speakers below which a standard error is rough
PARTS = 2  # of a training utterance, where its speaker has no other


class Found(NamedTuple):
    """What one system's embeddings gave.

    Attributes:
        eer: Equal error rate by kind of vector, then by ``raw``, ``lda12``, ``lda24``; None where there is none.
        stderr: Its standard error over speakers, likewise; None of a rate of 0, where the bootstrap tells nothing.
        missing: Why there is none, likewise.
        dims: L, values of a vector, by kind.
        rates: Error rates at all thresholds by kind and scoring, for the picture.
        trials: How many pairs there are, and how many of them are targets; utterances and speakers they are made of.
        notes: What the user should know.
    """

    eer: dict[str, dict[str, float | None]]
    stderr: dict[str, dict[str, float | None]]
    missing: dict[str, dict[str, str]]
    dims: dict[str, int]
    rates: dict[str, dict[str, Rates]]
    trials: dict[str, int]
    notes: list[str]


def evaluate(source: Source, corpus: Corpus, split: str) -> Found:
    """Make trials of a split, and find the equal error rates of a system's embeddings.

    Args:
        source: Gives embeddings of a split.
        corpus: Holds splits train and `split`, of which the speakers are read.
        split: What the trials are made from.
    """
    from evaluation.verification.trials import all_pairs, bootstrap_error, cosine_scores, equal_error_rate, error_rates

    spoken = Counter(utterance.speaker for utterance in corpus.splits["train"])
    test = source(split, 1)
    trials = all_pairs(test.speakers)
    speakers = len(set(test.speakers))
    counts = {"trials": len(trials.target), "targets": int(trials.target.sum())}
    counts |= {"utterances": len(test.files), "speakers": speakers}
    found = Found({}, {}, {}, {}, {}, counts, _notes(spoken, split, speakers))
    train = _training(source, spoken)
    for kind, vectors in test.vectors.items():
        found.dims[kind] = vectors.shape[1]
        for part in (found.eer, found.stderr, found.missing, found.rates):
            part[kind] = {}
        for name, dims in [("raw", None), *((f"lda{dims}", dims) for dims in LDA_DIMS)]:
            seen, reason = _projected(kind, train, vectors, dims)
            found.eer[kind][name] = found.stderr[kind][name] = None
            if seen is None:
                found.missing[kind][name] = reason
                continue
            scores = cosine_scores(seen, trials)
            rates = error_rates(scores, trials.target)
            found.rates[kind][name] = rates
            found.eer[kind][name] = equal_error_rate(rates)
            # Speakers drawn anew from those who are never confused are never confused: that says nothing.
            found.stderr[kind][name] = bootstrap_error(scores, trials) if found.eer[kind][name] else None
    return found


def _training(source: Source, spoken: Counter[str]) -> Embedded:
    """What LDA is fitted on: the training utterances, that of a speaker who has no other cut in parts."""
    import numpy as np

    from evaluation.verification.trials import Embedded

    single = {speaker for speaker, count in spoken.items() if count < 2}
    taken = []
    for parts, speakers in ((1, set(spoken) - single), (PARTS, single)):
        if speakers:
            found = source("train", parts)
            kept = [n for n, speaker in enumerate(found.speakers) if speaker in speakers]
            vectors = {kind: values[kept] for kind, values in found.vectors.items()}
            taken.append(Embedded(vectors, [found.files[n] for n in kept], [found.speakers[n] for n in kept]))
    return Embedded(
        {kind: np.concatenate([one.vectors[kind] for one in taken]) for kind in taken[0].vectors},
        [file for one in taken for file in one.files],
        [speaker for one in taken for speaker in one.speakers],
    )


def _projected(kind: str, train: Embedded, vectors: Any, dims: int | None) -> tuple[Any, str]:
    """The vectors of the test as they are scored, or None and why there are none."""
    from evaluation.verification.lda import project, why_not

    if dims is None:
        return vectors, ""
    reason = why_not(dims, vectors.shape[1], train.speakers)
    if reason is not None:
        return None, reason
    projected = project(train.vectors[kind], train.speakers, vectors, dims)
    return projected, f"LDA to {dims} dimensions: the training embeddings span fewer"


def _notes(spoken: Counter[str], split: str, speakers: int) -> list[str]:
    notes = []
    single = sum(count < 2 for count in spoken.values())
    if single:
        notes.append(
            f"{single} of {len(spoken)} training speakers have one utterance, so LDA is fitted on "
            f"{PARTS} parts of these: it sees how parts of one utterance differ, not how utterances of one speaker do"
        )
    if split == "train":
        notes.append("LDA is fitted on split train, of which the trials are made too: its rates flatter")
    if speakers < FEW:
        notes.append(f"{speakers} speakers in the trials: their standard errors are rough at best")
    return notes


def report_of(
    settings: Settings, corpus: Corpus, request: Request, system: dict[str, Any], found: Found
) -> dict[str, Any]:
    """The report of `verification.json`."""
    return {
        "evaluation": "verification",
        "run": str(request.run),
        "corpus": corpus.name,
        "root": corpus.root or None,
        "split": request.split,
        "num_sequences": found.trials["utterances"],
        "seed": settings.seed,
        "data_seed": settings.data.seed,
        "overrides": list(request.overrides),
        "scoring": "cosine",
        **{key: found.trials[key] for key in ("trials", "targets", "speakers")},
        "eer": found.eer,
        "stderr": found.stderr,
        "missing": {kind: reasons for kind, reasons in found.missing.items() if reasons},
        "systems": {kind: {**system, "dim": dim} for kind, dim in found.dims.items()},
        "notes": found.notes,
    }


def merged(report: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """A report that keeps what an earlier one found of other embeddings on the same trials."""
    same = ("corpus", "root", "split", "data_seed", "num_sequences", "trials", "targets", "speakers")
    if before is None or any(before.get(key) != report[key] for key in same):
        return report
    by_kind = {key: {**before.get(key, {}), **report[key]} for key in ("eer", "stderr", "systems")}
    kept = {kind: why for kind, why in before.get("missing", {}).items() if kind not in report["eer"]}
    notes = [*report["notes"], *(note for note in before.get("notes", []) if note not in report["notes"])]
    return {**report, **by_kind, "missing": {**kept, **report["missing"]}, "notes": notes}


def table(report: dict[str, Any]) -> str:
    """The report for the terminal, rates in per cent."""
    from evaluation.reporting.report import Summary, text_table

    names = ["raw", *(f"lda{dims}" for dims in LDA_DIMS)]
    rows = []
    for kind, rates in report["eer"].items():
        figures = [Summary(rates[name], report["stderr"][kind][name], 0).text(2, 100.0) for name in names]
        rows.append([kind, str(report["systems"][kind]["dim"]), *figures])
    where = " ".join(str(report[key]) for key in ("corpus", "root") if report[key])
    header = ["EER in %", "dim", "raw", *(f"LDA {dims}" for dims in LDA_DIMS)]
    return (
        f"{report['trials']:,} trials, {report['targets']:,} of them targets: all pairs of {report['num_sequences']} "
        f"utterances of {report['speakers']} speakers\n{where}, split {report['split']}; cosine scoring\n\n"
        + text_table(header, rows)
    )


def _parser() -> argparse.ArgumentParser:
    parser = evaluation_parser(
        "verification", "Tell speakers apart by their embeddings; equal error rate.", without=("mode", "latents")
    )
    parser.add_argument(
        "--system",
        choices=list(SYSTEMS),
        default="fhvae",
        help="s-vectors of the run's FHVAE, or i-vectors trained on the run's corpus (default: %(default)s)",
    )
    sizes = parser.add_argument_group("sizes of --system ivector")
    sizes.add_argument("--components", type=int, metavar="C", help="Gaussians of the background model (default: 64)")
    sizes.add_argument("--covariance", choices=["diag", "full"], help="of each Gaussian (default: diag)")
    sizes.add_argument("--dim", type=int, metavar="R", help="values of an i-vector (default: 100)")
    sizes.add_argument("--iterations", type=int, metavar="I", help="steps of EM of the subspace (default: 20)")
    sizes.add_argument("--cmn", action="store_true", default=None, help="subtract each utterance's mean MFCC")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = _parser()

    def command() -> None:
        request, given = parse(parser, argv)
        sizes = {name: getattr(given, name) for name in ("components", "covariance", "dim", "iterations", "cmn")}
        sizes = {name: value for name, value in sizes.items() if value is not None}
        if given.system != "ivector" and sizes:
            raise UserError(f"--{next(iter(sizes))} has no effect with --system {given.system}: leave it out.")
        _command(request, given.system, sizes)

    return guarded(command)


def _command(request: Request, name: str, sizes: dict[str, Any]) -> None:
    from evaluation.reporting.plots import save_picture
    from evaluation.reporting.report import read_json, write_json
    from evaluation.verification.det import det_curves

    settings, corpus, source, system = SYSTEMS[name](request, sizes)
    found = evaluate(source, corpus, request.split)
    for note in corpus.notes.get(request.split, []):
        say(note)
    path = request.run / "verification.json"
    before = read_json(path, "Remove it.") if path.is_file() else None
    report = merged(report_of(settings, corpus, request, {"system": name, **system}, found), before)
    picture = request.run / ("verification.png" if name == "fhvae" else f"verification_{name}.png")
    save_picture(det_curves(found.rates, found.eer, f"{request.run}: {report['trials']:,} trials"), picture)
    write_json(path, report)
    if request.json is not None:
        write_json(request.json, report)
    print(table(report))
    for kind, reasons in report["missing"].items():
        say(f"{kind}: none for {'; '.join(reasons.values())}")
    for note in report["notes"]:
        say(note)
    say(f"wrote {path} and {picture}")


if __name__ == "__main__":
    sys.exit(main())
