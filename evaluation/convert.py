"""Another voice for an utterance: ``python -m evaluation.convert RUN --source A --reference B --out C.wav``.

Decodes the source with the reference's latent of the sequence (`evaluation.exchange`): voice conversion where speakers
differ, denoising where the reference is a clean recording, as in Figures 1 and 5 of Hsu, Zhang & Glass (2017). Leaves
the sound C.wav, C.png, spectrograms of what it was made of, and C.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae_pyro.errors import UserError
from evaluation.exchange import (
    UNUSED_DB,
    add_phase_argument,
    decibels,
    described,
    exchangeable,
    exchanged,
    read_pair,
    sounds,
)
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from torch import Tensor

    from inference.runs import Run

__all__ = ["main", "way_to_the_reference"]


def way_to_the_reference(run: Run, data: Tensor, lengths: Tensor) -> float:
    r"""How far a conversion goes, as its own s-vector tells: 0 stays at the source, 1 arrives at the reference.

    .. math:: \frac{(\mu_2^{\mathrm{conv}} - \mu_2^{\mathrm{src}})^\top (\mu_2^{\mathrm{ref}} - \mu_2^{\mathrm{src}})}
        {\|\mu_2^{\mathrm{ref}} - \mu_2^{\mathrm{src}}\|^2}

    with the s-vectors (Eq. 5) that the guide infers from decoded frames: the source decoded with its own mu_2, with the
    reference's, and the reference with its own.

    Args:
        run: a run of a model with mu2.
        data: these three (3, T, D), zero beyond each length.
        lengths: their frames, (3,), on the CPU.
    """
    from inference.prediction.reconstruction import infer

    source, converted, reference = infer(run.model, run.guide, data.transpose(0, 1), lengths)["mu2"].double()
    way = reference - source
    return float((converted - source) @ way / (way @ way).clamp_min(1e-300))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("convert", "Decode an utterance with the latent of the sequence of another one.")
    for side, what in (("source", "what is said"), ("reference", "who says it, or through what")):
        parser.add_argument(
            f"--{side}", required=True, metavar=side[0].upper(), help=f"{what}: a sound file, or one in the split"
        )
    add_phase_argument(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="C.wav", help="the sound; C.png and C.json are written beside it"
    )

    def command() -> None:
        request, given = parse(parser, argv)
        if given.out.suffix.lower() != ".wav":
            raise UserError(f"--out {given.out}: expected the name of a .wav file.")
        _command(request, given)

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    run = open_run(request)
    import numpy as np
    import torch

    from evaluation.reporting.plots import Panel, save_picture, spectrogram_panels
    from evaluation.reporting.report import write_json
    from evaluation.resynthesis.audio import write_wav

    names, frontend = exchangeable(run)
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    pair = read_pair(run, request.split, {"--source": given.source, "--reference": given.reference}, frontend)
    report = described("convert", run, request, given.phase)
    data = exchanged(run, pair, mode=report["mode"], latents=report["latents"])
    power, (own, converted) = sounds(frontend, pair, data[:2], given.phase)
    figures = {"moved_db": decibels(*power)}
    if "mu2" in names:
        lengths = torch.tensor([len(spoken.x) for spoken in pair])[[0, 0, 1]]
        figures["way_to_the_reference"] = way_to_the_reference(run, data[[0, 1, 3]], lengths)
    out: Path = given.out
    write_wav(out, converted / max(1.0, float(np.abs(converted).max())), frontend.rate)
    panels = [
        Panel(f"source: {Path(pair[0].file).stem}", pair[0].samples, frontend.rate),
        Panel("source, reconstructed", own, frontend.rate),
        Panel(f"reference: {Path(pair[1].file).stem}", pair[1].samples, frontend.rate),
        Panel("source, converted", converted, frontend.rate),
    ]
    save_picture(spectrogram_panels(panels, columns=2), out.with_suffix(".png"))
    report |= {
        "source": pair[0].file,
        "reference": pair[1].file,
        "converted": list(names),
        "metrics": {name: {"mean": value, "stderr": None} for name, value in figures.items()},
        "files": [out.name, out.with_suffix(".png").name],
    }
    for path in (out.with_suffix(".json"), request.json):
        if path is not None:
            write_json(path, report)
    what = ", ".join(names)
    print(f"{report['model']}: {pair[0].file} with {what} of {pair[1].file}")
    print(f"that moves its spectrum by {figures['moved_db']:.2f} dB (RMS)", end="")
    way = figures.get("way_to_the_reference")
    print("" if way is None else f", and its s-vector {100.0 * way:.0f} % of the way to the reference's")
    if figures["moved_db"] < UNUSED_DB:
        say(f"that is nothing: this model does not use {what}")
    say(f"wrote {out}, {out.with_suffix('.png').name} and {out.with_suffix('.json').name}")


if __name__ == "__main__":
    sys.exit(main())
