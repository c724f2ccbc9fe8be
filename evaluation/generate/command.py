"""The work of `evaluation.generate`: sample, and fill the output folder."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from dvae_pyro.progress import progress_bar
from evaluation.generate.drawings import draw
from evaluation.generate.plots import contact_sheet
from evaluation.generate.sampling import num_frames, sampled, to_sounds
from evaluation.loading.waveforms import as_power, find_sound_frontend
from evaluation.recordings.mos import dnsmos, require_dnsmos
from evaluation.reporting.audio import peak, write_sound
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.outputs import Outputs
from evaluation.reporting.plots import save_picture
from evaluation.reporting.provenance import caption
from evaluation.reporting.report import Summary, summarise
from inference.runs import Run

__all__ = ["run_generate"]

PICTURED, COLUMNS = 24, 6
FRAMES = 100
"""Length of sequences of data without a sampling rate, unless the run or the command line says otherwise."""


def run_generate(request: Request, options: argparse.Namespace) -> None:
    """Sample from a run, write the output folder, and print what it contains.

    Raises:
        UserError: a number is out of range, the output folder is not empty, or no sequence is finite.
    """
    check_minimum(options, sequences=1, chunk=1, phase_iterations=0, frames=2)
    out: Path = request.run / "generated" if options.out is None else options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not an empty folder. Give another --out: nothing is replaced.")
    if options.mos:
        require_dnsmos()
    run = read_run(request)
    if options.mos and (options.no_audio or find_sound_frontend(run) is None):
        raise UserError("--mos rates sounds, and this command writes none. Omit --mos.")
    with _new_folder(out) as folder:
        fill = _draw if run.settings.model.likelihood == "pen" else _generate
        report = _header(run, options) | fill(run, options, folder)
        if len(report["not_finite"]) == options.sequences:
            raise UserError(
                f"all {options.sequences} sequences diverged to values that are not finite; nothing is written."
            )
        Outputs(folder, "generate", request).write(report)
    content = report["array"] or f"{len(report['files'])} sounds"
    length = f"{report['frames']} frames" + (f" ({report['seconds']:g} s)" if report["seconds"] else "")
    if report["shortest"] is not None:
        length = f"{report['shortest']} to {length}, the lengths of training drawings"
    sequences = f"{report['model']}: {report['num']} sequences of {length}, x {report['x']}"
    print(f"{sequences}, in {out}: {content}, generated.png")
    if report["metrics"]:
        say(f"DNSMOS {Summary(**report['metrics']['dnsmos']).text(2)} (compare: evaluation.resynthesis --mos)")
    if report["not_finite"]:
        say(
            f"{len(report['not_finite'])} of {report['num']} sequences diverged to values that are not finite and are "
            "left out; generate.json lists them"
        )


def _header(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """The keys of the report, those of the results being None."""
    results = ("frames", "shortest", "seconds", "rate", "x", "phase", "not_finite", "files", "metrics", "array")
    return {
        "evaluation": "generate",
        "run": str(run.path),
        "checkpoint": run.checkpoint_path.name,
        "step": run.state["step"],
        "model": run.settings.model.name,
        "seed": run.settings.seed,
        "num": options.sequences,
        "batch": options.chunk,
        **dict.fromkeys(results),
    }


def _draw(run: Run, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write drawings of a model of pen strokes; without a given length they have the lengths of training drawings."""
    if options.x == "mean":
        raise UserError("--x mean: the mean of a binary pen lift is not a pen state. Omit --x.")
    frames = None if options.frames is None and options.seconds is None else _length(run, None, options)
    return draw(run, folder, options.sequences, frames, options.chunk)


def _generate(run: Run, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write sounds, or an array of frames, and the picture; returns the results of the report."""
    frontend = find_sound_frontend(run)
    frames, x = _length(run, frontend, options), options.x or ("sample" if frontend is None else "mean")
    audio = frontend is not None and not options.no_audio
    files: list[dict[str, Any]] = []
    not_finite: list[int] = []
    shown: list[NDArray[np.float32]] = []
    number = 0
    digits = max(4, len(str(options.sequences - 1)))
    shape = (options.sequences, frames, run.settings.model.bins)
    array = contextlib.nullcontext() if audio else _array(folder / "frames.npy", shape)
    with progress_bar("generating", options.sequences, "seq") as bar, array as stream:
        for batch in sampled(run, options.sequences, frames, x, options.chunk):
            finite = batch.isfinite().flatten(1).all(1).cpu()
            not_finite += [number + i for i in (~finite).nonzero()[:, 0].tolist()]
            values = batch.cpu().numpy().astype(np.float32)
            shown += list(values[finite.numpy()][: PICTURED - len(shown)])
            if stream is not None:
                stream.write(values.tobytes())
            elif frontend is not None:
                sounds = to_sounds(batch, frontend, options.phase_iterations)
                for i in finite.nonzero()[:, 0].tolist():
                    files.append(_write(folder, f"{number + i:0{digits}d}.wav", sounds[i], frontend.rate))
                    if options.mos:
                        files[-1]["dnsmos"] = dnsmos(sounds[i], frontend.rate)
            number += len(batch)
            bar.update(len(batch))
    hop_s = None if frontend is None else frontend.hop / frontend.rate
    if shown:
        pictured = torch.from_numpy(np.stack(shown))
        extent = None
        if frontend is not None and hop_s is not None:
            pictured = as_power(frontend, pictured)
            extent = (frames * hop_s, frontend.rate / 2000.0)
        heading = f"{caption(run)}: generated, the {x} of x at each frame"
        columns = min(COLUMNS, math.isqrt(len(pictured) - 1) + 1)
        save_picture(contact_sheet(pictured.numpy(), extent, columns, heading), folder / "generated.png")
    return {
        "frames": frames,
        "seconds": None if hop_s is None else (frames - 1) * hop_s,
        "rate": None if frontend is None else frontend.rate,
        "x": x,
        "phase": {"algorithm": "Griffin-Lim", "iterations": options.phase_iterations} if audio else None,
        "not_finite": not_finite,
        "files": files if audio else None,
        "metrics": {"dnsmos": summarise(file["dnsmos"] for file in files)._asdict()} if audio and options.mos else {},
        "array": None if audio else "frames.npy",
    }


def _length(run: Run, frontend: Stft | None, options: argparse.Namespace) -> int:
    """Number of frames of each sequence."""
    if options.frames is not None and options.seconds is not None:
        raise UserError("--frames and --seconds both set the length: give one of them.")
    if options.frames is not None:
        return int(options.frames)
    if frontend is not None:
        return num_frames(frontend, options.seconds)
    if options.seconds is not None:
        raise UserError(f"--seconds: data.frontend={run.settings.data.frontend} has no sampling rate. Give --frames T.")
    return int(run.settings.data.sequence_frames or FRAMES)


def _write(folder: Path, name: str, samples: NDArray[np.float64], rate: int) -> dict[str, Any]:
    """Write one sound, scaled down where it would clip."""
    write_sound(folder / name, samples / peak(samples), rate)
    return {"file": name, "peak": float(np.abs(samples).max())}


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `out` when it is complete, and removed otherwise."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    with disk_errors(out):
        partial.mkdir(parents=True)
    try:
        yield partial
        with disk_errors(out):
            if out.exists():
                out.rmdir()
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _array(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A .npy file of float32, to be written in parts."""
    with disk_errors(path), path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        yield stream
