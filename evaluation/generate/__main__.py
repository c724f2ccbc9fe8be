"""Unconditional generation: ``python -m evaluation.generate RUN --num N --seconds S --out DIR``.

Sample latents from the prior and spectra from them, give the spectra a phase by Griffin and Lim's algorithm, and write
sounds, a contact sheet (``generated.png``) and a list of what was made (``generate.json``) into a new folder. Strokes
of a pen are drawn, beside those of the training split (`evaluation.generate.drawings`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dvae_pyro.errors import UserError
from evaluation.generate.sampling import add_sampling_arguments, as_power, num_frames, sampled, sound_frontend
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from corpora.frontends.stft import Stft
    from inference.runs import Run

__all__ = ["main"]

ON_THE_SHEET = 24
COLUMNS = 6


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    unused = ("corpus", "root", "split", "mode", "latents")
    parser = evaluation_parser("generate", "Sample sequences from the model.", without=unused)
    add_sampling_arguments(parser, 16, "how many")
    parser.add_argument("--frames", type=int, metavar="T", help="how long each is, in frames, in place of --seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new or empty folder (default: RUN/generated)")
    parser.add_argument(
        "--no-audio", action="store_true", help="write the frames as one array (frames.npy) and no sounds"
    )

    def command() -> None:
        request, given = parse(parser, argv)
        if min(given.num, given.batch) < 1 or given.iterations < 0:
            raise UserError("--num and --batch take a number from 1 up, --iterations from 0 up.")
        _command(request, given)

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    out: Path = request.run / "generated" if given.out is None else given.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not an empty folder. Give another --out: nothing is replaced.")
    run = open_run(request)
    from evaluation.reporting.report import write_json

    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    with _folder(out) as folder:
        report = _about(run, given) | (_draw if run.settings.model.likelihood == "pen" else _generate)(
            run, given, folder
        )
        if len(report["not_finite"]) == given.num:
            raise UserError(
                f"all {given.num} sequences ran away to values that are not finite: this model generates nothing."
            )
        write_json(folder / "generate.json", report)
    if request.json is not None:
        write_json(request.json, report)
    kind = report["array"] or f"{len(report['files'])} sounds"
    length = f"{report['frames']} frames" + (f" ({report['seconds']:g} s)" if report["seconds"] else "")
    if report["shortest"] is not None:
        length = f"{report['shortest']} to {length}, the lengths of training drawings"
    print(f"{report['model']}: {report['num']} sequences of {length}, x {report['x']}, in {out}: {kind}, generated.png")
    if report["not_finite"]:
        say(
            f"{len(report['not_finite'])} of {report['num']} sequences ran away to values that are not finite, and are "
            "left out; generate.json names them"
        )


def _about(run: Run, given: argparse.Namespace) -> dict[str, Any]:
    """What is generated from what, and nothing yet of what came of it."""
    nothing = dict.fromkeys(("frames", "shortest", "seconds", "rate", "x", "phase", "not_finite", "files", "array"))
    return {
        "evaluation": "generate",
        "run": str(run.path),
        "checkpoint": run.checkpoint_path.name,
        "step": run.state["step"],
        "model": run.settings.model.name,
        "seed": run.settings.seed,
        "num": given.num,
        "batch": given.batch,
        **nothing,
    }


def _draw(run: Run, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same for pen strokes, whose lengths are those of training drawings where none is given."""
    from evaluation.generate.drawings import draw

    if given.x == "mean":
        raise UserError("--x mean: a pen is lifted or it is not, and the mean of that is neither. Leave --x out.")
    frames = None if given.frames is None and given.seconds is None else _length(run, None, given)
    return draw(run, folder, given.num, frames, given.batch)


def _generate(run: Run, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fill a folder, and say with what."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from corpora.frontends.griffin_lim import griffin_lim
    from evaluation.reporting.plots import contact_sheet, save_picture

    frontend = sound_frontend(run)
    frames, x = _length(run, frontend, given), given.x or ("sample" if frontend is None else "mean")
    audio = frontend is not None and not given.no_audio
    files: list[dict[str, Any]] = []
    odd: list[int] = []
    shown: list[NDArray[np.float32]] = []
    number = 0
    digits = max(4, len(str(given.num - 1)))
    shape = (given.num, frames, run.settings.model.bins)
    array = contextlib.nullcontext() if audio else _array(folder / "frames.npy", shape)
    bar = tqdm(desc="generating", total=given.num, unit="seq", mininterval=0.2 if sys.stderr.isatty() else 30.0)
    with bar, array as stream:
        for data in sampled(run, given.num, frames, x, given.batch):
            finite = data.isfinite().flatten(1).all(1).cpu()
            odd += [number + i for i in (~finite).nonzero()[:, 0].tolist()]
            values = data.cpu().numpy().astype(np.float32)
            shown += list(values[finite.numpy()][: ON_THE_SHEET - len(shown)])
            if stream is not None:
                stream.write(values.tobytes())
            elif frontend is not None and bool(finite.any()):
                sounds = griffin_lim(as_power(frontend, data[finite.to(data.device)]), frontend, given.iterations)
                numbers = [number + i for i in finite.nonzero()[:, 0].tolist()]
                for n, samples in zip(numbers, sounds.double().cpu().numpy(), strict=True):
                    files.append(_write(folder, f"{n:0{digits}d}.wav", samples, frontend.rate))
            number += len(data)
            bar.update(len(data))
    step = None if frontend is None else frontend.hop / frontend.rate
    extent = None if frontend is None or step is None else (frames * step, frontend.rate / 2000.0)
    heading = f"{run.settings.model.name}, step {run.state['step']}: generated, x {x}"
    if shown:
        drawn = torch.from_numpy(np.stack(shown))
        if frontend is not None:
            drawn = as_power(frontend, drawn)
        save_picture(contact_sheet(drawn.numpy(), extent, COLUMNS, heading), folder / "generated.png")
    return {
        "frames": frames,
        "seconds": None if step is None else (frames - 1) * step,
        "rate": None if frontend is None else frontend.rate,
        "x": x,
        "phase": {"algorithm": "Griffin-Lim", "iterations": given.iterations} if audio else None,
        "not_finite": odd,
        "files": files if audio else None,
        "array": None if audio else "frames.npy",
    }


def _length(run: Run, frontend: Stft | None, given: argparse.Namespace) -> int:
    if given.frames is not None and given.seconds is not None:
        raise UserError("--frames and --seconds both say how long: give one of them.")
    if given.frames is not None:
        if given.frames < 2:
            raise UserError(f"--frames {given.frames}: expected 2 or more.")
        return int(given.frames)
    if frontend is not None:
        return num_frames(frontend, given.seconds)
    if given.seconds is not None:
        raise UserError(f"data.frontend={run.settings.data.frontend} has no seconds: say --frames T.")
    return int(run.settings.data.sequence_frames or 100)


def _write(folder: Path, name: str, samples: NDArray[np.float64], rate: int) -> dict[str, Any]:
    """One sound, quieter where it would clip."""
    import numpy as np

    from evaluation.resynthesis.audio import write_wav

    peak = float(np.abs(samples).max())
    write_wav(folder / name, samples / max(1.0, peak), rate)
    return {"file": name, "peak": peak}


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that is filled under another name, and there only when it is whole."""
    from dvae_pyro.files import disk_errors

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
    """A .npy file of float32 that is written piece after piece."""
    import numpy as np

    from dvae_pyro.files import disk_errors

    with disk_errors(path), path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        yield stream


if __name__ == "__main__":
    sys.exit(main())
