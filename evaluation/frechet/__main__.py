"""Frechet distances of generated speech: ``python -m evaluation.frechet RUN [--features FILE|log_mel]``.

Sounds sampled from the model, and held-out speech as it is and with its phase forgotten, against the training set, in
the features of a network that the user brings or of log-mel bands. Leaves ``frechet.json`` in the run folder.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError
from evaluation.generate.sampling import add_sampling_arguments, as_power, num_frames, sampled, sound_frontend
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from torch import Tensor

    from corpora.frontends.stft import Stft
    from corpora.types import Utterance
    from evaluation.resynthesis.decoding import Faults
    from inference.runs import Run

__all__ = ["evaluate", "main", "pieces", "table"]

GENERATED, EXACT, GRIFFIN_LIM = "generated", "exact_phase", "griffin_lim"
LABELS = {GENERATED: "generated", EXACT: "{split} set, exact phase", GRIFFIN_LIM: "{split} set, Griffin-Lim"}


def pieces(
    run: Run, utterances: Iterable[Utterance], frontend: Stft, samples: int, num: int, faults: Faults
) -> Iterator[Tensor]:
    """Consecutive pieces of utterances, each (samples,), at most `num`; from utterances in an order of the data's seed.

    Args:
        run: says what to do with a broken file, and the seed.
        utterances: where from.
        frontend: trims and scales whole utterances, before they are cut.
        samples: length of a piece; what is left of an utterance is dropped.
        num: how many.
        faults: is told what happened to the files.
    """
    import numpy as np
    import torch

    from evaluation.resynthesis.decoding import read_spoken

    order = list(utterances)
    random.Random(run.settings.data.seed).shuffle(order)
    count = 0
    for spoken in read_spoken(order, frontend, run.settings.data.on_error, faults):
        for start in range(0, len(spoken.samples) - samples + 1, samples):
            yield torch.from_numpy(spoken.samples[start : start + samples].astype(np.float32))
            count += 1
            if count == num:
                return


def evaluate(run: Run, request: Request, given: argparse.Namespace) -> dict[str, Any]:
    """Measure the distances, and report them."""
    import numpy as np

    from corpora.registry import open_corpus
    from evaluation.frechet.distances import measured
    from evaluation.frechet.features import extract, open_extractor
    from evaluation.resynthesis.decoding import Faults

    frontend = sound_frontend(run)
    if frontend is None:
        raise UserError(f"data.frontend={run.settings.data.frontend} leads to no sounds: there is nothing to hear.")
    frames = num_frames(frontend, given.seconds)
    samples = (frames - 1) * frontend.hop
    extractor = open_extractor(given.features, frontend.rate, run.settings.device)
    corpus = open_corpus(run.settings.data, run.settings.data.seed, needed=["train", request.split])
    faults = Faults()

    def heard(split: str) -> Iterator[Tensor]:
        return _batches(pieces(run, corpus.splits[split], frontend, samples, given.num, faults), given.batch)

    x = given.x or "mean"
    against = extract(extractor, heard("train"), f"pieces of {samples} samples in split train")
    held_out = list(heard(request.split))
    sounds: dict[str, tuple[Iterable[Tensor], str]] = {
        EXACT: (held_out, f"pieces of {samples} samples in split {request.split}"),
        GRIFFIN_LIM: ((_rephased(batch, frontend, run, given) for batch in held_out), "pieces"),
        GENERATED: (_generated(run, frontend, frames, x, given), "generated sounds that are finite"),
    }
    features = {name: extract(extractor, *batches) for name, batches in sounds.items()}
    rows = {
        name: {"mean": d.value, "stderr": d.stderr, "bias": None if np.isnan(d.bias) else d.bias, "n": len(found)}
        for name, found in ((name, features[name]) for name in LABELS)
        for d in [measured(found, against, given.resamples, run.settings.seed)]
    }
    return {
        "evaluation": "frechet",
        "run": str(run.path),
        "corpus": corpus.name,
        "root": corpus.root or None,
        "split": request.split,
        "reference": {"split": "train", "n": len(against)},
        "num_sequences": rows[GENERATED]["n"],
        "not_finite": given.num - rows[GENERATED]["n"],
        "seconds": samples / frontend.rate,
        "features": {"name": extractor.name, "dim": against.shape[1]},
        "x": x,
        "phase": {"algorithm": "Griffin-Lim", "iterations": given.iterations},
        "mode": "gen",
        "latents": "sample",
        "checkpoint": run.checkpoint_path.name,
        "step": run.state["step"],
        "model": run.settings.model.name,
        "seed": run.settings.seed,
        "metrics": rows,
        "skipped": faults.broken,
        "notes": faults.lines(frontend.rate),
    }


def _generated(run: Run, frontend: Stft, frames: int, x: str, given: argparse.Namespace) -> Iterator[Tensor]:
    """Waveforms (N, samples) of the sequences that stayed finite."""
    from tqdm import tqdm

    from corpora.frontends.griffin_lim import griffin_lim

    seldom = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(desc="generating", total=given.num, unit="seq", mininterval=seldom) as bar:
        for data in sampled(run, given.num, frames, x, given.batch):
            finite = data[data.isfinite().flatten(1).all(1)]
            if len(finite):
                yield griffin_lim(as_power(frontend, finite), frontend, given.iterations)
            bar.update(len(data))


def _rephased(waveforms: Tensor, frontend: Stft, run: Run, given: argparse.Namespace) -> Tensor:
    """The same waveforms with a phase from their features alone."""
    import numpy as np
    import torch

    from corpora.frontends.griffin_lim import griffin_lim

    power = np.stack([frontend.power(frontend.features(samples)) for samples in waveforms.double().numpy()])
    return griffin_lim(torch.from_numpy(power).to(waveforms).to(run.settings.device), frontend, given.iterations)


def _batches(sounds: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    import torch

    while batch := list(itertools.islice(sounds, size)):
        yield torch.stack(batch)


def table(report: dict[str, Any]) -> str:
    """The report for the terminal."""
    from evaluation.reporting.report import text_table

    rows = []
    for name, found in report["metrics"].items():
        bias = "" if found["bias"] is None else f"{found['bias']:.2f}"
        label = LABELS[name].format(split=report["split"])
        rows.append([label, f"{found['mean']:.2f}", f"{found['stderr']:.2f}", bias, str(found["n"])])
    reference, features = report["reference"], report["features"]
    return (
        f"{report['model']}, {report['checkpoint']} at step {report['step']}, x {report['x']}: sounds of "
        f"{report['seconds']:g} s\nFrechet distance to {reference['n']} pieces of the training set, in the "
        f"{features['dim']} features of {features['name']}\n\n"
        + text_table(["", "distance", "std. error", "bias, about", "sounds"], rows)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser(
        "frechet", "Frechet distance of generated sounds to the training set.", without=("mode", "latents")
    )
    add_sampling_arguments(parser, 1024, "sounds in each set, at most")
    parser.add_argument(
        "--features",
        default="log_mel",
        metavar="FILE",
        help="a network in TorchScript (.pt), torch.export (.pt2) or ONNX (.onnx) that takes waveforms (N, samples), "
        "or log_mel (default)",
    )
    parser.add_argument(
        "--resamples", type=int, default=50, metavar="R", help="for the standard error (default: %(default)s)"
    )

    def command() -> None:
        request, given = parse(parser, argv)
        if min(given.num, given.resamples) < 2 or given.batch < 1 or given.iterations < 0:
            raise UserError("--num and --resamples take a number from 2 up, --batch from 1, --iterations from 0.")
        if request.split == "train":
            raise UserError("--split train: the training set is what all is compared with. Give valid or test.")
        _command(request, given)

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    run = open_run(request)
    from evaluation.reporting.report import write_json

    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    report = evaluate(run, request, given)
    write_json(run.path / "frechet.json", report)
    if request.json is not None:
        write_json(request.json, report)
    print(table(report))
    for remark in _remarks(report):
        say(remark)
    say(f"wrote {run.path / 'frechet.json'}")


def _remarks(report: dict[str, Any]) -> Iterator[str]:
    if report["not_finite"]:
        yield f"{report['not_finite']} generated sequences ran away to values that are not finite, and are left out"
    dim, counts = report["features"]["dim"], {name: found["n"] for name, found in report["metrics"].items()}
    few = [name for name, n in {**counts, "training set": report["reference"]["n"]}.items() if n <= dim]
    if few:
        yield f"no more sounds than features ({dim}) in {', '.join(few)}: distances are well too large; give more --num"
    if len({*counts.values()}) > 1:
        yield "sets of different sizes: their biases differ, see the table"
    yield from report["notes"]


if __name__ == "__main__":
    sys.exit(main())
