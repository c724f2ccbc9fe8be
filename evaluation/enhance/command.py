"""The enhancement command: read recordings, estimate clean speech in batches of blocks, write sounds and a report."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from corpora.frontends.stft import Stft
from corpora.loading.sequences import by_length
from corpora.types import AudioFault, refusal
from dvae_pyro.errors import UserError
from dvae_pyro.progress import progress_bar
from evaluation.enhance.denoise import Estimate, denoise
from evaluation.enhance.noise import check_reverb, known_spectra, open_noise
from evaluation.enhance.picture import Drawn, save_enhancement
from evaluation.enhance.report import columns_of, report_of, scored, table
from evaluation.recordings.blocks import Assembler, Block, Layout, blocks, layout, restored
from evaluation.recordings.files import Recording, find_recordings, match_clean, read_mono
from evaluation.recordings.output import SoundOut
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import Outputs
from evaluation.reporting.provenance import caption
from evaluation.restoration.program import FRAMES_AT_ONCE, stft_of
from evaluation.restoration.scores import Row
from evaluation.restoration.settings import RestorationSettings, split_overrides
from evaluation.resynthesis.worker_pool import all_cores
from inference.posterior.methods import method

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = ["Enhancement", "MethodResult", "enhance", "run_command"]

READ_AHEAD = 4
PICTURES = 6


class Enhancement(NamedTuple):
    """The options of an enhancement.

    Attributes:
        noisy: a sound file or a folder.
        clean: clean recordings of the same names; None computes no metrics.
        methods: names of inference methods.
        out: folder for sounds and reports.
        audio: number of recordings whose sounds are written; None: all.
        jobs: processes for metrics.
        evidence: particles of the estimate of log p(y); 0: no estimate.
        observation: the degradation, ``"noise"`` or ``"reverb"``.
    """

    noisy: Path
    clean: Path | None
    methods: tuple[str, ...]
    out: Path
    audio: int | None
    jobs: int
    evidence: int = 0
    observation: str = "noise"


@dataclass
class MethodResult:
    """The result of one method for one recording.

    Attributes:
        out: writes the samples, or keeps them in memory.
        assembler: joins the blocks.
        frames: number of frames of its blocks.
        objective: the method's objective in nats, summed over blocks.
        seconds: computing time.
        rates: further figures of the method, summed over blocks with the number of frames as weight.
        estimate: the estimate of the first block, for the picture.
    """

    out: SoundOut
    assembler: Assembler
    frames: int = 0
    objective: float = 0.0
    seconds: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    estimate: Estimate | None = None

    def add(self, estimate: Estimate) -> None:
        """Count a block."""
        frames = len(estimate.gain)
        self.frames += frames
        self.objective += estimate.objective
        self.seconds += estimate.seconds
        for key, value in estimate.rates.items():
            self.rates[key] = self.rates.get(key, 0.0) + value * frames
        self.estimate = self.estimate or estimate


class _Task(NamedTuple):
    """The recordings and their blocks, before anything is computed."""

    recordings: list[tuple[int, Recording, Layout]]
    clean: list[Recording] | None
    broken: dict[str, str]


def run_command(request: Request, options: argparse.Namespace) -> None:
    """Enhance recordings; write sounds, ``enhance.json``, ``enhance.csv`` and a picture, and print the table."""
    check_minimum(options, audio=0, evidence=0, jobs=0)
    given = Enhancement(
        noisy=options.noisy,
        clean=options.clean,
        methods=tuple(dict.fromkeys(word for word in options.inference if "=" not in word)) or ("vem",),
        out=options.out or request.run / "enhance",
        audio=options.audio,
        evidence=options.evidence,
        observation=options.observation,
        jobs=all_cores() if options.jobs is None else options.jobs,
    )
    # settings after the methods are parsed as methods
    after = (word for word in options.inference if "=" in word)
    request = request._replace(overrides=(*request.overrides, *after))
    outputs = Outputs(given.out, "enhance", request)
    outputs.refuse_overwriting()
    settings, of_run = split_overrides(request.overrides)
    for name in given.methods:
        method(name)
    run = read_run(request._replace(overrides=tuple(of_run)))
    say(f"prior: {run.checkpoint_path}, step {run.state['step']}, model {run.settings.model.name}")
    rows, broken = enhance(run, given, settings, progress=True)
    report = report_of(run, request, given, settings, rows, broken)
    outputs.write(report, columns_of(rows), rows)
    print(table(report))
    for note in report["notes"]:
        say(note)
    say(f"wrote {given.out / 'enhance.json'}, enhance.csv and sounds to {given.out}")


def enhance(
    run: Run, given: Enhancement, settings: RestorationSettings, *, progress: bool = False
) -> tuple[list[Row], dict[str, str]]:
    """Enhance recordings.

    Args:
        run: the prior.
        given: the options.
        settings: settings of noise and inference.
        progress: whether to show a progress bar on standard error.

    Returns:
        A row for each recording and method, and the fault of each broken file.

    Raises:
        UserError: A file or a setting is not valid.
    """
    frontend = stft_of(run)
    check_reverb(given, settings)
    noise_run = open_noise(run, given, settings)
    task = _task(given, run.settings.data.on_error)
    shown = range(PICTURES if given.audio is None else min(given.audio, PICTURES))
    made: dict[tuple[int, str], MethodResult] = {}
    seconds = sum(cut.samples / cut.rate for _, _, cut in task.recordings) * len(given.methods)
    style = "{desc} {percentage:3.0f}% |{bar}| {n:.1f}/{total:.1f} s of sound [{elapsed}, {remaining} left]"
    bar = progress_bar("enhancing", seconds + 1e-6, "s", shown=progress, bar_format=style)
    with ExitStack() as outputs, bar:
        for name in given.methods:
            for place, recording, cut in task.recordings:
                writes = given.audio is None or place < given.audio
                path = _sound_path(given, recording, name) if writes else None
                out = outputs.enter_context(SoundOut(path, cut.rate, keep=task.clean is not None or place in shown))
                made[place, name] = MethodResult(out, Assembler(cut, out))
        cuts = {place: (recording, cut) for place, recording, cut in task.recordings}
        for batch in _batches(task, frontend, shared=settings.noise.shared):
            spectra = known_spectra(batch, cuts, frontend, settings)
            share = sum(block.size / cuts[block.recording][1].rate for block in batch)
            for name in given.methods:
                before, step = bar.n, share / max(1, settings.inference.steps)

                def advance(most: float = before + share, step: float = step) -> None:
                    bar.update(min(step, most - bar.n))

                sounding = [block for block in batch if block.scale > 0.0]
                found = []
                if sounding:
                    found = denoise(
                        run,
                        sounding,
                        settings,
                        name,
                        spectra=spectra,
                        noise_run=noise_run,
                        observation=given.observation,
                        particles=given.evidence,
                        progress=advance,
                    )
                estimates = dict(zip([id(block) for block in sounding], found, strict=True))
                for block in batch:
                    of = made[block.recording, name]
                    estimate = estimates.get(id(block))
                    spectrum = block.spectrum if estimate is None else estimate.gain * block.spectrum
                    of.assembler.add(block.number, restored(block, spectrum, of.out.rate, frontend))
                    if estimate is not None:
                        of.add(estimate)
                bar.update(max(0.0, before + share - bar.n))
    rows = [_row(of.name, name, made[place, name]) for name in given.methods for place, of, _ in task.recordings]
    if task.clean is not None:
        rows = scored(rows, _pairs(task, made, given.methods), given.jobs)
    drawn = [_drawn(task, made, given.methods[0], i) for i in range(min(len(shown), len(task.recordings)))]
    if drawn:
        heading = f"{caption(run)}: method {given.methods[0]}"
        save_enhancement([d for d in drawn if d is not None], given.out / "enhance.png", frontend, heading)
    return rows, task.broken


def _task(given: Enhancement, on_error: str) -> _Task:
    recordings = find_recordings(given.noisy, "--noisy")
    clean = None if given.clean is None else match_clean(recordings, given.clean)
    kept, broken = [], dict[str, str]()
    for place, recording in enumerate(recordings):
        try:
            kept.append((place, recording, layout(recording)))
        except AudioFault as fault:
            if on_error == "error":
                raise refusal(str(recording.path), fault.fault) from None
            broken[str(recording.path)] = fault.fault
    if not kept:
        raise UserError(
            f"--noisy {given.noisy}: all {len(broken)} sound files are broken, the first: it "
            f"{next(iter(broken.values()))}."
        )
    return _Task(kept, clean, broken)


def _sound_path(given: Enhancement, recording: Recording, name: str) -> Path:
    folder = given.out / name if len(given.methods) > 1 else given.out
    return folder / f"{recording.name}.wav"


def _batches(task: _Task, frontend: Stft, *, shared: bool) -> Iterator[list[Block]]:
    """Batches of blocks of similar length; one batch of all blocks if they share W."""
    waiting: list[Block] = []
    for block in blocks(task.recordings, frontend):
        waiting.append(block)
        if not shared and sum(len(b.x) for b in waiting) >= READ_AHEAD * FRAMES_AT_ONCE:
            yield from by_length(waiting, FRAMES_AT_ONCE)
            waiting = []
    if shared:
        yield waiting
    else:
        yield from by_length(waiting, FRAMES_AT_ONCE)


def _row(name: str, inference: str, made: MethodResult) -> Row:
    length = made.assembler.cut.samples / made.assembler.cut.rate
    frames = max(made.frames, 1)
    return {
        "file": name,
        "inference": inference,
        "frames": made.frames,
        "duration": round(length, 4),
        "bound_per_frame": made.objective / frames,
        "seconds": made.seconds,
        "real_time_factor": made.seconds / length,
        **{key: value / frames for key, value in made.rates.items()},
    }


def _pairs(
    task: _Task, made: dict[tuple[int, str], MethodResult], methods: Sequence[str]
) -> Iterator[tuple[tuple[int, str], tuple[object, object, int]]]:
    """For each recording, clean and noisy samples, then clean samples and the estimate of each method."""
    assert task.clean is not None
    for i, (place, recording, cut) in enumerate(task.recordings):
        clean = read_mono(task.clean[place], cut.rate, cut.samples)
        yield (i, ""), (clean, read_mono(recording), cut.rate)
        for name in methods:
            yield (i, name), (clean, made[place, name].out.samples, cut.rate)


def _drawn(task: _Task, made: dict[tuple[int, str], MethodResult], name: str, i: int) -> Drawn | None:
    place, recording, cut = task.recordings[i]
    of = made[place, name]
    if of.estimate is None:
        return None
    most = 30 * cut.rate
    clean = None if task.clean is None else read_mono(task.clean[place], cut.rate, cut.samples)[:most]
    noisy = read_mono(recording)[:most]
    return Drawn(recording.name, noisy, of.out.samples[:most], clean, cut.rate, of.estimate.gain, *of.estimate.noise)
