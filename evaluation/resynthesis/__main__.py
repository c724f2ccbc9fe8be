"""Analysis-resynthesis of a split: ``python -m evaluation.resynthesis RUN``.

Encode each whole utterance, decode it, give the model's amplitude the phase of the input, transform back, and
measure how close that is (`evaluation.resynthesis.metrics`). Leaves ``resynthesis.json`` and ``resynthesis.csv`` in the
run folder.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say
from evaluation.resynthesis.worker_pool import Pair, all_cores, score_all

if TYPE_CHECKING:  # torch stays out of the workers, which import this module too
    from corpora.types import Corpus
    from evaluation.resynthesis.decoding import Resynthesis
    from inference.runs import Run

__all__ = ["COLUMNS", "Outcome", "evaluate", "main", "report_of", "table"]

WHAT = ("file", "speaker", "frames")
OF_WAVEFORM = ("si_sdr", "rmse_scaled", "rmse_plain", "pesq_wb", "pesq_nb", "stoi", "estoi")
OF_MODEL = ("is_per_frame", "kl_per_frame")
FIGURES = (*OF_WAVEFORM, *OF_MODEL)
COLUMNS = (*WHAT, *FIGURES)

WITHOUT_PESQ = "PESQ was not computed (--without-pesq)"

Row = dict[str, str | int | float]


class Outcome(NamedTuple):
    """What an evaluation found: the report of `resynthesis.json`, and a row of `resynthesis.csv` per
    utterance."""

    report: dict[str, Any]
    rows: list[Row]


def evaluate(
    run: Run,
    corpus: Corpus,
    request: Request,
    *,
    jobs: int = 0,
    audio: int = 0,
    with_pesq: bool = True,
    progress: bool = False,
) -> Outcome:
    """Resynthesise a split and measure it.

    Args:
        run: the run.
        corpus: holds the split.
        request: what was asked for: split, mode, latents, and what the report repeats.
        jobs: processes that compute metrics; 0 computes them in this process.
        audio: how many utterances, the first of the split, leave sounds and a picture in ``RUN/audio/``.
        with_pesq: compute PESQ; without, the report says so.
        progress: draw a progress bar on standard error.
    """
    from tqdm import tqdm

    from evaluation.resynthesis.audio import write_audio
    from evaluation.resynthesis.decoding import Faults, resynthesise

    utterances = corpus.splits[request.split]
    faults = Faults()
    kept: list[Resynthesis] = []

    def pairs() -> Iterator[tuple[tuple[int, Row], Pair]]:
        for made in resynthesise(run, utterances, mode=request.mode, latents=request.latents, faults=faults):
            if made.place < audio:
                kept.append(made)
            row: Row = {column: getattr(made, column) for column in (*WHAT, *OF_MODEL)}
            yield (made.place, row), Pair(made.reference, made.estimate, made.rate, with_pesq)

    rows: dict[int, Row] = {}
    seldom = 0.2 if sys.stderr.isatty() else 30.0
    bar = tqdm(
        desc="resynthesis",
        total=len(utterances),
        unit="file",
        disable=not progress,
        mininterval=seldom,
        dynamic_ncols=True,
    )
    with bar:
        for (index, row), scores in score_all(pairs(), min(jobs, len(utterances))):
            rows[index] = {c: {**row, **scores._asdict()}[c] for c in COLUMNS}
            bar.update(len(rows) + len(faults.broken) - bar.n)
    if not rows:
        raise UserError(
            f"Nothing to evaluate in split '{request.split}' of corpus {corpus.name} {corpus.root}: "
            f"{len(utterances)} utterances, {len(faults.broken)} of them broken."
        )
    ordered = [rows[index] for index in sorted(rows)]
    rate = run.settings.data.rate
    notes = [
        *corpus.notes.get(request.split, []),
        *faults.lines(rate),
        *(_pesq_notes(rate) if with_pesq else [WITHOUT_PESQ]),
    ]
    if kept:
        write_audio(run.path / "audio", sorted(kept, key=lambda made: made.place))
    report = report_of(run, request, ordered, with_pesq=with_pesq)
    return Outcome({**report, "skipped": faults.broken, "notes": notes}, ordered)


def report_of(run: Run, request: Request, rows: Sequence[Row], *, with_pesq: bool = True) -> dict[str, Any]:
    """The report: what was evaluated, mean and standard error of each figure, and which figures are
    missing."""
    from evaluation.reporting.provenance import provenance
    from evaluation.reporting.report import summarise
    from evaluation.resynthesis.decoding import frontend_of

    frontend = frontend_of(run)
    described = {k: getattr(frontend, k, None) for k in ("dim", "rate", "window", "hop", "trim_db")}
    wanted = [f for f in FIGURES if with_pesq or not f.startswith("pesq")]
    unscored = {f: [str(row["file"]) for row in rows if not math.isfinite(float(row[f]))] for f in wanted}
    without = {*unscored.get("pesq_wb", []), *unscored.get("pesq_nb", [])}
    no_speech = [str(row["file"]) for row in rows if row["file"] in without]
    return {
        **provenance("resynthesis", run, request),
        "num_sequences": len(rows),
        "frontend": {"name": run.settings.data.frontend, **described},
        "metrics": {f: summarise(float(row[f]) for row in rows)._asdict() for f in FIGURES},
        "pesq_unscored": {"count": len(no_speech), "files": no_speech},
        "unscored": {f: files for f, files in unscored.items() if files},
    }


def table(report: dict[str, Any]) -> str:
    """The report for the terminal."""
    from evaluation.reporting.report import Summary, text_table
    from evaluation.resynthesis.metrics import METRICS

    lines = []
    for figure, values in report["metrics"].items():
        metric, found = METRICS[figure], Summary(**values)
        mean, _, stderr = found.text(metric.decimals, metric.scale).partition(" ±")
        lines.append([metric.label, mean, stderr, str(found.n), metric.better or ""])
    where = " ".join(str(report[k]) for k in ("corpus", "root") if report[k])
    return (
        f"{report['model']} (guide {report['guide']}, {report['parameters']:,} parameters), "
        f"{report['checkpoint']} at step {report['step']}\n"
        f"{report['num_sequences']} utterances of {where}, split {report['split']}; "
        f"mode {report['mode']}, latents {report['latents']}\n\n"
        + text_table(["", "mean", "std. error", "utterances", "better"], lines)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("resynthesis", "Resynthesise a split and measure how close that comes.")
    parser.add_argument("--audio", type=int, default=0, metavar="N", help="write N pairs of sounds to RUN/audio/")
    parser.add_argument("--jobs", type=int, default=None, metavar="J", help="processes for metrics; default: all cores")

    parser.add_argument("--without-pesq", action="store_true", help="leave PESQ out, where its package cannot be built")

    def command() -> None:
        request, given = parse(parser, argv)
        if not given.without_pesq and find_spec("pesq") is None:
            raise UserError("package pesq is not installed: pip install pesq, or evaluate with --without-pesq.")
        if given.audio < 0 or (given.jobs is not None and given.jobs < 0):
            raise UserError("--audio and --jobs take a number from 0 up.")
        jobs = all_cores() if given.jobs is None else given.jobs
        _command(request, given.audio, jobs, with_pesq=not given.without_pesq)

    return guarded(command)


def _command(request: Request, audio: int, jobs: int, *, with_pesq: bool) -> None:
    run = open_run(request)
    from corpora.registry import open_corpus
    from evaluation.reporting.report import write_csv, write_json

    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    corpus = open_corpus(run.settings.data, run.settings.data.seed, needed=[request.split])
    outcome = evaluate(run, corpus, request, jobs=jobs, audio=audio, with_pesq=with_pesq, progress=True)
    write_json(run.path / "resynthesis.json", outcome.report)
    write_csv(run.path / "resynthesis.csv", COLUMNS, outcome.rows)
    if request.json is not None:
        write_json(request.json, outcome.report)
    print(table(outcome.report))
    for figure, files in _missing(outcome.report):
        print(f"{figure} in {len(files)} of {len(outcome.rows)} utterances: {_names(files)}")
    for note in outcome.report["notes"]:
        say(note)
    if audio:
        say(f"wrote sounds and spectrograms.png to {run.path / 'audio'}")
    say(f"wrote {run.path / 'resynthesis.json'} and {run.path / 'resynthesis.csv'}")


def _missing(report: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Which figures do not exist for which utterances, in words."""
    from evaluation.resynthesis.metrics import METRICS

    if report["pesq_unscored"]["count"]:
        yield "PESQ found no speech", report["pesq_unscored"]["files"]
    for figure, files in report["unscored"].items():
        if not figure.startswith("pesq"):
            yield f"{METRICS[figure].label} does not exist", files


def _names(files: Sequence[str], most: int = 10) -> str:
    more = f" and {len(files) - most} more (in resynthesis.json)" if len(files) > most else ""
    return ", ".join(files[:most]) + more


def _pesq_notes(rate: int) -> list[str]:
    from evaluation.resynthesis.metrics import pesq_rate

    names = {"wb": "wide", "nb": "narrow"}
    return [
        f"PESQ {name} band: computed after resampling from {rate} to {pesq_rate(rate, band)} Hz"
        for band, name in names.items()
        if pesq_rate(rate, band) != rate
    ]


if __name__ == "__main__":
    sys.exit(main())
