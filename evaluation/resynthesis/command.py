"""The work of `evaluation.resynthesis`: from a run and a split to the report, the table and the files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from corpora.types import Corpus
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.loading.splits import corpus_of
from evaluation.loading.waveforms import FileLog, sound_frontend
from evaluation.recordings.mos import dnsmos, require_dnsmos
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.provenance import caption, provenance
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
from evaluation.resynthesis.audio import write_audio
from evaluation.resynthesis.decoding import Resynthesis, resynthesise
from evaluation.resynthesis.metrics import METRICS, Scores, pesq_rate
from evaluation.resynthesis.worker_pool import Pair, all_cores, score_all
from inference.runs import Run

__all__ = ["COLUMNS", "evaluate", "report_of", "run_resynthesis", "table"]

UTTERANCE = ("file", "speaker", "frames")
MODEL_FIGURES = ("is_per_frame", "kl_per_frame")
FIGURES = (*Scores._fields, *MODEL_FIGURES)
COLUMNS = (*UTTERANCE, *FIGURES)
MOS_FIGURES = ("dnsmos", "dnsmos_reference")


def run_resynthesis(request: Request, options: argparse.Namespace) -> None:
    """Evaluate a run, write ``resynthesis.json`` and ``resynthesis.csv``, and print the table.

    Raises:
        UserError: a number is out of range, PESQ is not installed, or nothing can be evaluated.
    """
    check_minimum(options, audio=0, jobs=0)
    audio, with_pesq = options.audio, not options.without_pesq
    if with_pesq and find_spec("pesq") is None:
        raise UserError("package pesq is not installed: pip install pesq, or evaluate with --without-pesq.")
    if options.mos:
        require_dnsmos()
    jobs = all_cores() if options.jobs is None else options.jobs
    run = read_run(request)
    outputs = outputs_of("resynthesis", request, run.settings)
    corpus = corpus_of(run.settings, request.split)
    results = evaluate(
        run,
        corpus,
        request,
        jobs=jobs,
        sounds=outputs.beside("audio"),
        audio=audio,
        with_pesq=with_pesq,
        with_mos=options.mos,
        progress=True,
    )
    outputs.write(results.report, list(results.rows[0]), results.rows)
    print(table(results.report))
    for reason, files in _undefined(results.report):
        print(f"{reason} in {len(files)} of {len(results.rows)} utterances: {_names(files)}")
    for note in results.report["notes"]:
        say(note)
    if audio:
        say(f"wrote sounds and spectrograms.png to {outputs.beside('audio')}")
    say(f"wrote {outputs.names('csv')}")


def evaluate(
    run: Run,
    corpus: Corpus,
    request: Request,
    *,
    jobs: int = 0,
    audio: int = 0,
    sounds: Path | None = None,
    with_pesq: bool = True,
    with_mos: bool = False,
    progress: bool = False,
) -> Results:
    """Resynthesise a split and measure it.

    Args:
        run: the run.
        corpus: contains the split.
        request: the command line: split, mode, latents, and what the report repeats.
        jobs: processes that compute metrics; 0 computes them in this process.
        audio: for how many utterances, the first of the split, sounds and a picture are written.
        sounds: folder of these; None is ``RUN/audio/``.
        with_pesq: compute PESQ; otherwise a note of the report says that it was not computed.
        with_mos: add DNSMOS of the estimate and of the reference.
        progress: draw a progress bar on standard error.

    Raises:
        UserError: no utterance of the split can be read.
    """
    utterances = corpus.splits[request.split]
    log = FileLog()
    kept: list[Resynthesis] = []

    def pairs() -> Iterator[tuple[tuple[int, CsvRow], Pair]]:
        for item in resynthesise(run, utterances, mode=request.mode, latents=request.latents, log=log):
            if item.number < audio:
                kept.append(item)
            row: CsvRow = {column: getattr(item, column) for column in (*UTTERANCE, *MODEL_FIGURES)}
            if with_mos:
                row |= {
                    "dnsmos": dnsmos(item.estimate, item.rate),
                    "dnsmos_reference": dnsmos(item.reference, item.rate),
                }
            yield (item.number, row), Pair(item.reference, item.estimate, item.rate, with_pesq)

    columns = (*COLUMNS, *MOS_FIGURES) if with_mos else COLUMNS
    rows: dict[int, CsvRow] = {}
    with progress_bar("resynthesis", len(utterances), "file", shown=progress) as bar:
        for (number, row), scores in score_all(pairs(), min(jobs, len(utterances))):
            rows[number] = {c: {**row, **scores._asdict()}[c] for c in columns}
            bar.update(len(rows) + len(log.broken) - bar.n)
    if not rows:
        raise UserError(
            f"Nothing to evaluate in split '{request.split}' of corpus {corpus.name} {corpus.root}: "
            f"{len(utterances)} utterances, {len(log.broken)} of them broken."
        )
    ordered = [rows[number] for number in sorted(rows)]
    rate = run.settings.data.rate
    of_pesq = _pesq_notes(rate) if with_pesq else ["PESQ was not computed (--without-pesq)"]
    notes = [*corpus.notes.get(request.split, []), *log.lines(rate), *of_pesq]
    report = report_of(run, request, ordered, with_pesq=with_pesq)
    if kept:
        heading = f"{caption(run)}: resynthesis{mode_text(report)}"
        write_audio(sounds or run.path / "audio", sorted(kept, key=lambda item: item.number), heading)
    return Results({**report, "skipped": log.broken, "notes": notes}, ordered)


def report_of(run: Run, request: Request, rows: Sequence[CsvRow], *, with_pesq: bool = True) -> dict[str, Any]:
    """The report: provenance, mean and standard error of each figure, and the files for which a figure is undefined."""
    frontend = sound_frontend(run)
    parameters = {k: getattr(frontend, k, None) for k in ("dim", "rate", "window", "hop", "trim_db")}
    figures = [f for f in (*FIGURES, *MOS_FIGURES) if f in rows[0]]
    computed = [f for f in figures if with_pesq or not f.startswith("pesq")]
    unscored = {f: [str(row["file"]) for row in rows if not math.isfinite(float(row[f]))] for f in computed}
    without = {*unscored.get("pesq_wb", []), *unscored.get("pesq_nb", [])}
    no_speech = [str(row["file"]) for row in rows if row["file"] in without]
    return {
        **provenance("resynthesis", run, request),
        "num_sequences": len(rows),
        "frontend": {"name": run.settings.data.frontend, **parameters},
        "metrics": {f: summarise(float(row[f]) for row in rows)._asdict() for f in figures},
        "pesq_unscored": {"count": len(no_speech), "files": no_speech},
        "unscored": {f: files for f, files in unscored.items() if files},
    }


def table(report: dict[str, Any]) -> str:
    """The report for the terminal."""
    lines = []
    for figure, values in report["metrics"].items():
        metric, summary = METRICS[figure], Summary(**values)
        mean, _, stderr = summary.text(metric.decimals, metric.scale).partition(" ±")
        lines.append([metric.label, mean, stderr, str(summary.n), metric.better or ""])
    return (
        f"{model_text(report)}\n{report['num_sequences']} utterances of {data_text(report)}"
        f"{mode_text(report)}, latents {report['latents']}\n\n"
        + text_table(["", "mean", "std. error", "utterances", "better"], lines)
    )


def _undefined(report: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Reason and files for each figure that is undefined for some files."""
    if report["pesq_unscored"]["count"]:
        yield "PESQ found no speech", report["pesq_unscored"]["files"]
    for figure, files in report["unscored"].items():
        if not figure.startswith("pesq"):
            yield f"{METRICS[figure].label} is undefined", files


def _names(files: Sequence[str], most: int = 10) -> str:
    more = f" and {len(files) - most} more (in resynthesis.json)" if len(files) > most else ""
    return ", ".join(files[:most]) + more


def _pesq_notes(rate: int) -> list[str]:
    names = {"wb": "wide", "nb": "narrow"}
    return [
        f"PESQ {name} band: computed after resampling from {rate} to {pesq_rate(rate, band)} Hz"
        for band, name in names.items()
        if pesq_rate(rate, band) != rate
    ]
