"""The inpainting command: read recordings, fill in missing bins, write sounds and a report."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.stft import Stft
from corpora.loading.sequences import by_length
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.inpaint.fill import ROUNDS, consistent_phase, predictive
from evaluation.recordings.blocks import Block, layout, transformed
from evaluation.recordings.files import Recording, find_recordings, match_clean, read_mono
from evaluation.recordings.output import SoundOut
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import Outputs
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import Summary, text_table
from evaluation.restoration.program import FRAMES_AT_ONCE, stft_of
from evaluation.restoration.scores import Row, means
from evaluation.restoration.settings import RestorationSettings, split_overrides
from evaluation.resynthesis.metrics import METRICS, Metric, Scores
from evaluation.resynthesis.worker_pool import Pair, all_cores, score_all
from inference.observation.mask import interpolated, present_bins
from inference.observation.settings import time_span
from inference.runs import Run

__all__ = ["Inpainting", "run_command"]

WAYS = ("input", "interpolation", "prior")

Samples = NDArray[np.float64]


class Inpainting(NamedTuple):
    """The options of an inpainting.

    Attributes:
        path: a sound file or a folder.
        gaps: missing intervals in seconds, ``"0.5:0.6,1.2:1.3"``.
        above: cut-off frequency in Hz.
        clean: complete recordings of the same names; None computes no metrics.
        method: name of the inference method.
        out: folder for sounds and reports.
        jobs: processes for metrics.
    """

    path: Path
    gaps: str | None
    above: float | None
    clean: Path | None
    method: str
    out: Path
    jobs: int


class _Item(NamedTuple):
    """A recording and its missing parts.

    Attributes:
        place: its index.
        recording: its file.
        rate: its sampling rate in Hz.
        block: its observed samples and transform; missing samples are zero.
        known: observed samples at the front end's rate, without frequencies above the cut-off.
        missing: whether each of these samples is missing.
        present: whether each bin was observed, (T, F).
    """

    place: int
    recording: Recording
    rate: int
    block: Block
    known: Samples
    missing: NDArray[np.bool_]
    present: Tensor

    @property
    def x(self) -> Tensor:
        return self.block.x


def run_command(request: Request, options: argparse.Namespace) -> None:
    """Fill in missing parts; write sounds, ``inpaint.json`` and ``inpaint.csv``, and print the table.

    Raises:
        UserError: An option is not valid.
    """
    check_minimum(options, jobs=0)
    given = Inpainting(
        path=options.input,
        gaps=options.gaps,
        above=options.above,
        clean=options.clean,
        method=options.inference,
        out=options.out or request.run / "inpaint",
        jobs=all_cores() if options.jobs is None else options.jobs,
    )
    if given.gaps is None and given.above is None:
        raise UserError(
            "neither --gaps nor --above is given, so nothing is missing. Give --gaps 0.5:0.6,1.2:1.3 or --above 4000."
        )
    if given.method not in ("vem", "refine", "point"):
        raise UserError(f"--inference {given.method}: expected refine, vem or point.")
    outputs = Outputs(given.out, "inpaint", request)
    outputs.refuse_overwriting()
    settings, of_run = split_overrides(request.overrides)
    run = read_run(request._replace(overrides=tuple(of_run)))
    frontend = stft_of(run)
    if given.above is not None and not 0.0 < given.above < frontend.rate / 2:
        raise UserError(f"--above {given.above:g}: expected a frequency below {frontend.rate / 2:g} Hz, half the rate.")
    recordings = find_recordings(given.path, "--input")
    clean = None if given.clean is None else match_clean(recordings, given.clean)
    items = [_item(place, recording, given, frontend) for place, recording in enumerate(recordings)]
    made = _made(run, items, settings, given, frontend)
    rows = _rows(items, made, clean, given, frontend)
    report = {
        **provenance("inpaint", run, request),
        "corpus": None,
        "root": str(given.path),
        "gaps": given.gaps,
        "above": given.above,
        "num_sequences": len(items),
        "inference": {"method": given.method, **vars(settings.inference)},
        "metrics": means(rows, [column for column in rows[0] if column != "file"]),
    }
    outputs.write(report, list(rows[0]), rows)
    print(_table(report))
    say(f"wrote inpaint.json, inpaint.csv and sounds to {given.out}")


def _item(place: int, recording: Recording, given: Inpainting, frontend: Stft) -> _Item:
    samples, rate = read_mono(recording), layout(recording).rate
    gaps = [time_span(text, "--gaps") for text in given.gaps.split(",")] if given.gaps else []
    missing = np.zeros(len(samples), dtype=bool)
    for start, end in gaps:
        if round(start * rate) >= len(samples):
            raise UserError(
                f"--gaps {start:g}:{end:g}: {recording.path} ends at {len(samples) / rate:.2f} s. Give gaps within it."
            )
        missing[round(start * rate) : round(end * rate)] = True
    block = transformed(place, 0, np.where(missing, 0.0, samples), rate, frontend)
    if block.scale == 0.0:
        raise UserError(f"--gaps {given.gaps}: {recording.path} is silent outside of these gaps. Give shorter ones.")
    count = (len(block.x) - 1) * frontend.hop
    sizes = len(block.x), frontend.window, frontend.hop, frontend.rate
    below = present_bins(*sizes, above=given.above).numpy()
    known = frontend.waveform(np.where(below, block.spectrum, 0.0), count)
    at = np.zeros(count, dtype=bool)
    for start, end in gaps:
        at[round(start * frontend.rate) : round(end * frontend.rate)] = True
    present = present_bins(*sizes, gaps=gaps, above=given.above)
    return _Item(place, recording, rate, block, known, at, present)


def _made(
    run: Run, items: Sequence[_Item], settings: RestorationSettings, given: Inpainting, frontend: Stft
) -> dict[tuple[int, str], tuple[Samples, Tensor]]:
    """Samples at the front end's rate, and power, of each recording and each of interpolation and prior."""
    made: dict[tuple[int, str], tuple[Samples, Tensor]] = {}
    batches = list(by_length(items, FRAMES_AT_ONCE))
    total = len(batches) * ROUNDS * settings.inference.steps
    with progress_bar("inpainting", total, "step") as bar:
        for batch in batches:
            blocks, present = [item.block for item in batch], [item.present for item in batch]
            powers = predictive(run, blocks, present, settings, given.method, progress=bar.update)
            for item, power in zip(batch, powers, strict=True):
                line = interpolated(item.block.x, item.present)
                for way, of in (("interpolation", line), ("prior", power)):
                    samples = consistent_phase(of, item.block, item.present, item.known, item.missing, frontend)
                    made[item.place, way] = (item.block.scale * samples[: item.block.samples], of)
    return made


def _rows(
    items: Sequence[_Item],
    made: dict[tuple[int, str], tuple[Samples, Tensor]],
    clean: Sequence[Recording] | None,
    given: Inpainting,
    frontend: Stft,
) -> list[Row]:
    """A row for each recording, with metrics of the input, of interpolation, and of the prior."""
    rows: list[Row] = [
        {"file": item.recording.name, "frames": len(item.block.x), "missing": float((~item.present).float().mean())}
        for item in items
    ]
    for item in items:
        path = given.out / f"{item.recording.name}.wav"
        with SoundOut(path, frontend.rate, keep=False) as out:
            out(made[item.place, "prior"][0])
    if clean is None:
        return rows
    references = [read_mono(c, frontend.rate, i.block.samples) for i, c in zip(items, clean, strict=True)]

    def pairs() -> Iterator[tuple[tuple[int, str], Pair]]:
        for item, reference in zip(items, references, strict=True):
            observed = item.block.scale * item.known[: item.block.samples]
            for way in WAYS:
                estimate = observed if way == "input" else made[item.place, way][0]
                yield (item.place, way), Pair(reference, estimate, frontend.rate)

    found = dict(score_all(pairs(), given.jobs))
    for item, reference in zip(items, references, strict=True):
        truth = transformed(0, 0, reference, frontend.rate, frontend)
        power = truth.x * (truth.scale / item.block.scale) ** 2
        for way in WAYS[1:]:
            rows[item.place][f"lsd_missing_{way}"] = _distance(made[item.place, way][1], power, ~item.present)
        for figure in Scores._fields:
            rows[item.place] |= {f"{figure}_{way}": getattr(found[item.place, way], figure) for way in WAYS}
    return rows


def _distance(power: Tensor, truth: Tensor, where: Tensor) -> float:
    """Log-spectral distance in dB: root mean square over the bins `where`; NaN if there are none."""
    if not bool(where.any()):
        return math.nan
    levels = [10.0 * torch.log10(p[where].clamp_min(1e-10)) for p in (power, truth)]
    return float((levels[0] - levels[1]).square().mean().sqrt())


def _table(report: dict[str, Any]) -> str:
    lines = []
    for figure in (*Scores._fields, "lsd_missing"):
        metric = METRICS.get(figure, Metric("LSD of missing bins, dB", 2, "lower"))
        found = [report["metrics"].get(f"{figure}_{way}") for way in WAYS]
        cells = ["" if f is None else Summary(**f).text(metric.decimals, metric.scale) for f in found]
        if any(cells):
            lines.append([metric.label, *cells])
    head = f"{report['num_sequences']} recordings of {report['root']}; prior {report['model']} ({report['run']})"
    return head + ("\n\n" + text_table(["", *WAYS], lines) if lines else "")
