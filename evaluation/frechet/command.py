"""The work of `evaluation.frechet`: sets of sounds, their features, distances, and the report."""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpora.frontends.griffin_lim import griffin_lim
from corpora.frontends.stft import Stft
from corpora.types import Utterance
from dvae_pyro.progress import progress_bar
from evaluation.frechet.distances import measured
from evaluation.frechet.features import extract, open_extractor
from evaluation.generate.sampling import num_frames, sampled
from evaluation.loading.splits import corpus_of
from evaluation.loading.waveforms import FileLog, as_power, read_sounds, sound_frontend
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.provenance import data_head
from evaluation.reporting.report import text_table
from inference.runs import Run

__all__ = ["evaluate", "pieces", "run_frechet", "table"]

GENERATED, EXACT, GRIFFIN_LIM = "generated", "exact_phase", "griffin_lim"
LABELS = {GENERATED: "generated", EXACT: "{split} set, exact phase", GRIFFIN_LIM: "{split} set, Griffin-Lim"}


def run_frechet(request: Request, options: argparse.Namespace) -> None:
    """Evaluate a run, write ``frechet.json``, and print the table.

    Raises:
        UserError: a number is out of range, or the training set is to be compared with itself.
    """
    check_minimum(options, sequences=2, resamples=2, chunk=1, phase_iterations=0)
    run = read_run(request)
    outputs = outputs_of("frechet", request, run.settings)
    report = evaluate(run, request, options)
    outputs.write(report)
    print(table(report))
    for remark in _remarks(report):
        say(remark)
    say(f"wrote {outputs.json}")


def evaluate(run: Run, request: Request, options: argparse.Namespace) -> dict[str, Any]:
    """The report: distances of generated sounds and of two versions of the held-out sounds to the training set.

    Raises:
        UserError: a set has fewer than two sounds, or the features of the run cannot be inverted.
    """
    frontend = sound_frontend(run)
    frames = num_frames(frontend, options.seconds)
    samples = (frames - 1) * frontend.hop
    extractor = open_extractor(options.features, frontend.rate, run.settings.device)
    corpus = corpus_of(run.settings, "train", request.split)
    log = FileLog()

    def recorded(split: str) -> Iterator[Tensor]:
        return _batches(pieces(run, corpus.splits[split], frontend, samples, options.sequences, log), options.chunk)

    x = options.x or "mean"
    training = extract(extractor, recorded("train"), f"pieces of {samples} samples in split train")
    held_out = list(recorded(request.split))
    sounds: dict[str, tuple[Iterable[Tensor], str]] = {
        EXACT: (held_out, f"pieces of {samples} samples in split {request.split}"),
        GRIFFIN_LIM: ((_rephased(batch, frontend, run, options.phase_iterations) for batch in held_out), "pieces"),
        GENERATED: (_generated(run, frontend, frames, x, options), "generated sounds that are finite"),
    }
    features = {name: extract(extractor, *batches) for name, batches in sounds.items()}
    metrics = {}
    for name in LABELS:
        distance = measured(features[name], training, options.resamples, run.settings.seed)
        bias = None if np.isnan(distance.bias) else distance.bias
        metrics[name] = {"mean": distance.value, "stderr": distance.stderr, "bias": bias, "n": len(features[name])}
    return {
        **data_head("frechet", run.path, corpus, request.split),
        "reference": {"split": "train", "n": len(training)},
        "num_sequences": metrics[GENERATED]["n"],
        "not_finite": options.sequences - len(features[GENERATED]),
        "seconds": samples / frontend.rate,
        "features": {"name": extractor.name, "dim": training.shape[1]},
        "x": x,
        "phase": {"algorithm": "Griffin-Lim", "iterations": options.phase_iterations},
        "mode": "gen",
        "latents": "sample",
        "checkpoint": run.checkpoint_path.name,
        "step": run.state["step"],
        "model": run.settings.model.name,
        "seed": run.settings.seed,
        "metrics": metrics,
        "skipped": log.broken,
        "notes": log.lines(frontend.rate),
    }


def pieces(
    run: Run, utterances: Iterable[Utterance], frontend: Stft, samples: int, num: int, log: FileLog
) -> Iterator[Tensor]:
    """Consecutive pieces (samples,) of utterances, which are in random order by the seed of the data.

    Args:
        run: provides data.on_error and the seed.
        utterances: the utterances.
        frontend: trims and scales each whole utterance before it is cut.
        samples: length of a piece; the rest of an utterance is dropped.
        num: largest number of pieces.
        log: records what happened to the files.
    """
    order = list(utterances)
    random.Random(run.settings.data.seed).shuffle(order)
    cut = (
        torch.from_numpy(item.samples[start : start + samples].astype(np.float32))
        for item in read_sounds(order, frontend, run.settings.data.on_error, log)
        for start in range(0, len(item.samples) - samples + 1, samples)
    )
    return itertools.islice(cut, num)


def _generated(run: Run, frontend: Stft, frames: int, x: str, options: argparse.Namespace) -> Iterator[Tensor]:
    """Waveforms (N, samples) of the generated sequences that are finite."""
    with progress_bar("generating", options.sequences, "seq") as bar:
        for batch in sampled(run, options.sequences, frames, x, options.chunk):
            finite = batch[batch.isfinite().flatten(1).all(1)]
            if len(finite):
                yield griffin_lim(as_power(frontend, finite), frontend, options.phase_iterations)
            bar.update(len(batch))


def _rephased(waveforms: Tensor, frontend: Stft, run: Run, iterations: int) -> Tensor:
    """Waveforms reconstructed from the features of waveforms, without their phase."""
    power = np.stack([frontend.power(frontend.features(samples)) for samples in waveforms.double().numpy()])
    return griffin_lim(torch.from_numpy(power).to(waveforms).to(run.settings.device), frontend, iterations)


def _batches(sounds: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while batch := list(itertools.islice(sounds, size)):
        yield torch.stack(batch)


def table(report: dict[str, Any]) -> str:
    """The report for the terminal."""
    rows = []
    for name, values in report["metrics"].items():
        bias = "" if values["bias"] is None else f"{values['bias']:.2f}"
        label = LABELS[name].format(split=report["split"])
        rows.append([label, f"{values['mean']:.2f}", f"{values['stderr']:.2f}", bias, str(values["n"])])
    reference, features = report["reference"], report["features"]
    return (
        f"{report['model']}, {report['checkpoint']} at step {report['step']}, x {report['x']}: sounds of "
        f"{report['seconds']:g} s\nFrechet distance to {reference['n']} pieces of the training set, in the "
        f"{features['dim']} features of {features['name']}\n\n"
        + text_table(["", "distance", "std. error", "bias, about", "sounds"], rows)
    )


def _remarks(report: dict[str, Any]) -> Iterator[str]:
    if report["not_finite"]:
        yield f"{report['not_finite']} generated sequences diverged to values that are not finite and are left out"
    dim, counts = report["features"]["dim"], {name: values["n"] for name, values in report["metrics"].items()}
    few = [name for name, n in {**counts, "training set": report["reference"]["n"]}.items() if n <= dim]
    if few:
        yield f"no more sounds than features ({dim}) in {', '.join(few)}: distances are far too large; more --sequences"
    if len({*counts.values()}) > 1:
        yield "the sets have different sizes, so their biases differ, see the table"
    yield from report["notes"]
