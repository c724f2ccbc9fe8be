"""The separation command: read mixtures, estimate their sources, write sounds and a report."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.frontends.stft import Stft
from corpora.loading.sequences import by_length
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.recordings.blocks import Block, layout, restored, transformed
from evaluation.recordings.files import Recording, find_recordings, match_clean, read_mono
from evaluation.recordings.output import SoundOut
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import Outputs
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import Summary, text_table
from evaluation.restoration.program import FRAMES_AT_ONCE, observed_program, same_front_end, stft_of
from evaluation.restoration.scores import Row, differences, means
from evaluation.restoration.settings import RestorationSettings, split_overrides
from evaluation.resynthesis.metrics import METRICS, Scores, si_sdr
from evaluation.resynthesis.worker_pool import Pair, all_cores, score_all
from inference.posterior.methods import method
from inference.runs import Run, load_run

__all__ = ["Separation", "run_command"]

ROUNDS = 3
"""Number of times that inference is run; the guide of each source then reads the latest estimate of that source."""

Samples = NDArray[np.float64]


class Separation(NamedTuple):
    """The options of a separation.

    Attributes:
        runs: run folders, one for each source.
        path: a sound file or a folder.
        clean: folders with the clean sources of the same names; None computes no metrics.
        method: name of the inference method.
        noisy: whether additional noise is modelled.
        out: folder for sounds and reports.
        jobs: processes for metrics.
    """

    runs: tuple[Path, ...]
    path: Path
    clean: tuple[Path, ...] | None
    method: str
    noisy: bool
    out: Path
    jobs: int


def run_command(request: Request, options: argparse.Namespace) -> None:
    """Separate recordings; write sounds, ``separate.json`` and ``separate.csv``, and print the table.

    Raises:
        UserError: An option is not valid.
    """
    check_minimum(options, jobs=0)
    given = Separation(
        runs=tuple(options.runs),
        path=options.mixture,
        clean=None if options.clean is None else tuple(options.clean),
        method=options.inference,
        noisy=options.noise,
        out=options.out or request.run / "separate",
        jobs=all_cores() if options.jobs is None else options.jobs,
    )
    if len(given.runs) < 2:
        raise UserError("got one run, expected one for each source, at least two. The same run may be given twice.")
    if given.clean is not None and len(given.clean) != len(given.runs):
        raise UserError(f"--clean names {len(given.clean)} folders, expected one for each of {len(given.runs)} runs.")
    if given.method not in ("vem", "refine", "point"):
        raise UserError(f"--inference {given.method}: expected vem, refine or point.")
    outputs = Outputs(given.out, "separate", request)
    outputs.refuse_overwriting()
    settings, of_run = split_overrides(request.overrides)
    first = read_run(request._replace(overrides=tuple(of_run)))
    runs = [first, *(load_run(path, device=first.settings.device, overrides=of_run) for path in given.runs[1:])]
    same_front_end(runs, "the run")
    frontend = stft_of(first)
    recordings = find_recordings(given.path, "--mixture")
    clean = None if given.clean is None else [match_clean(recordings, folder) for folder in given.clean]
    made = _separated(runs, recordings, settings, given, frontend)
    rows = _rows(recordings, made, clean, given)
    report = {
        **provenance("separate", first, request),
        "corpus": None,
        "root": str(given.path),
        "runs": [str(path) for path in given.runs],
        "num_sequences": len(recordings),
        "inference": {"method": given.method, **vars(settings.inference)},
        "metrics": means(rows, [column for column in rows[0] if column not in ("file", "source")]),
    }
    outputs.write(report, list(rows[0]), rows)
    print(_table(report))
    say(f"wrote separate.json, separate.csv and sounds to {given.out}")


def _separated(
    runs: Sequence[Run],
    recordings: Sequence[Recording],
    settings: RestorationSettings,
    given: Separation,
    frontend: Stft,
) -> list[list[Samples]]:
    """Estimate and write the samples of each source of each recording; returns them."""
    rates = [layout(recording).rate for recording in recordings]
    blocks = [transformed(n, 0, read_mono(r), rates[n], frontend) for n, r in enumerate(recordings)]
    for block, recording in zip(blocks, recordings, strict=True):
        if block.scale == 0.0:
            raise UserError(f"{recording.path} is silent: there is nothing to separate.")
    batches = list(by_length(blocks, FRAMES_AT_ONCE))
    made: dict[int, list[Samples]] = {}
    total = len(batches) * ROUNDS * settings.inference.steps
    with progress_bar("separating", total, "step") as bar:
        for batch in batches:
            gains = _gains(runs, batch, settings, given, bar.update)
            for n, block in enumerate(batch):
                place = block.recording
                spectra = [gain[: len(block.x), n] * block.spectrum for gain in gains]
                made[place] = [restored(block, spectrum, rates[place], frontend) for spectrum in spectra]
    for place, recording in enumerate(recordings):
        for k, samples in enumerate(made[place]):
            with SoundOut(given.out / f"{recording.name}-source{k + 1}.wav", rates[place], keep=False) as out:
                out(samples)
    return [made[place] for place in range(len(recordings))]


def _gains(
    runs: Sequence[Run],
    batch: Sequence[Block],
    settings: RestorationSettings,
    given: Separation,
    progress: Callable[[], object],
) -> list[NDArray[np.float64]]:
    """The Wiener gain (T, N, F) of each source of a batch."""
    torch.manual_seed(settings.inference.seed)
    reads, gains = None, list[torch.Tensor]()
    for _ in range(ROUNDS):
        problem = observed_program(runs, batch, settings, noisy=given.noisy, reads=reads)
        found = method(given.method)(problem, settings.inference, progress)
        gains = [found.gain, *found.others]
        reads = [gain.square() * problem.y for gain in gains]
    return [gain.double().cpu().numpy() for gain in gains]


def _rows(
    recordings: Sequence[Recording],
    made: Sequence[Sequence[Samples]],
    clean: Sequence[Sequence[Recording]] | None,
    given: Separation,
) -> list[Row]:
    """A row for each recording and source. If all sources have the same run, estimates are assigned by
    `_best_order`.
    """
    sources = range(len(given.runs))
    rows: list[Row] = [{"file": r.name, "source": k + 1} for r in recordings for k in sources]
    if clean is None:
        return rows
    one_prior = len({path.resolve() for path in given.runs}) == 1
    references = [
        [read_mono(clean[k][n], layout(r).rate, len(made[n][0])) for k in sources] for n, r in enumerate(recordings)
    ]

    def pairs() -> Iterator[tuple[tuple[int, str], Pair]]:
        for n, recording in enumerate(recordings):
            rate, mixed = layout(recording).rate, read_mono(recording)
            order = _best_order(references[n], made[n]) if one_prior else tuple(sources)
            for k in sources:
                place = n * len(sources) + k
                yield (place, "input"), Pair(references[n][k], mixed, rate)
                yield (place, "output"), Pair(references[n][k], made[n][order[k]], rate)

    found = dict(score_all(pairs(), given.jobs))
    for place, row in enumerate(rows):
        row |= differences(found[place, "input"], found[place, "output"])
    return rows


def _best_order(references: Sequence[Samples], estimates: Sequence[Samples]) -> tuple[int, ...]:
    """The estimate of each reference: the permutation with the highest sum of SI-SDR.

    Example:
        >>> a, b = np.array([1.0, 0.1, 0.0]), np.array([0.0, 0.1, 1.0])
        >>> _best_order([a, b], [b, a])
        (1, 0)
    """
    figures = [[si_sdr(r, e) for e in estimates] for r in references]
    orders = itertools.permutations(range(len(estimates)))
    return max(orders, key=lambda order: sum(figures[k][order[k]] for k in range(len(references))))


def _table(report: dict[str, Any]) -> str:
    lines = []
    for figure in Scores._fields:
        if figure in report["metrics"]:
            metric = METRICS[figure]
            summaries = (Summary(**report["metrics"][f"{figure}{of}"]) for of in ("_input", "", "_difference"))
            cells = [summary.text(metric.decimals, metric.scale) for summary in summaries]
            lines.append([metric.label, *cells])
    head = f"{report['num_sequences']} recordings of {report['root']}; priors {', '.join(report['runs'])}"
    return head + ("\n\n" + text_table(["", "mixture", "sources", "difference"], lines) if lines else "")
