"""The work of `evaluation.exchange`: two utterances with each other's latent of the sequence."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.disentanglement.pairs import UNUSED_DB, decibels, exchanged, open_pair, pair_report, short_names, sounds
from evaluation.loading.waveforms import SoundItem
from evaluation.reporting.audio import peak, write_sound
from evaluation.reporting.command_line import Request, say
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.plots import Difference, Panel, save_picture, spectrogram_panels
from evaluation.reporting.provenance import caption
from evaluation.reporting.report import mode_text

__all__ = ["run_exchange"]


def run_exchange(request: Request, options: argparse.Namespace) -> None:
    """Exchange, write sounds, picture and ``exchange.json``, and print how far the spectra move."""
    run, names, frontend, pair = open_pair(request, {"--source": options.source, "--reference": options.reference})
    outputs = outputs_of("exchange", request, run.settings, folder=options.out)
    report = pair_report("exchange", run, request, options.phase)
    decoded = exchanged(run, pair, mode=report["mode"], latents=report["latents"])
    power, samples = sounds(frontend, pair, decoded, options.phase)
    moved = [decibels(power[0], power[1]), decibels(power[3], power[2])]
    out: Path = outputs.beside("exchange") if options.out is None else options.out
    heading = f"{caption(run)}: exchange of {', '.join(names)}{mode_text(report)}"
    files, picture = _write(out, frontend.rate, pair, samples, names, heading)
    for path in (out / "exchange.png", request.picture):
        if path is not None:
            save_picture(picture, path)
    report |= {
        "a": pair[0].file,
        "b": pair[1].file,
        "exchanged": list(names),
        "metrics": {f"{side}_moved_db": {"mean": m, "stderr": None} for side, m in zip("ab", moved, strict=True)},
        "files": files,
    }
    outputs.write(report)
    latents = ", ".join(names)
    print(
        f"{report['model']}: {latents} of {pair[0].file} and {pair[1].file} exchanged{mode_text(report)}, latents "
        f"{report['latents']}"
    )
    print(f"the exchange of {latents} changes the spectrum of A by {moved[0]:.2f} dB, of B by {moved[1]:.2f} dB (RMS)")
    if max(moved) < UNUSED_DB:
        say(f"the change is negligible: this model does not use {latents}")
    if report["mode"] == "gt" and any(name.startswith("x") for name in run.model.parents(run.settings.model)["x"]):
        say("with --mode gt the decoder is given the true past of x; use --mode gen to see the effect of the latents")
    say(f"wrote {', '.join(files)} to {out}, and {outputs.json}")


def _write(
    out: Path,
    rate: int,
    pair: Sequence[SoundItem],
    samples: Sequence[NDArray[np.float64]],
    names: Sequence[str],
    heading: str,
) -> tuple[list[str], Figure]:
    """Write the four sounds, on a common scale, and draw them, the two inputs and what the exchange changes; returns
    the file names and the picture.
    """
    stems = [PurePosixPath(Path(item.file).as_posix()).stem for item in pair]
    titles = short_names(pair)
    latents, scale = "".join(names), peak(*samples)
    files: list[str] = []
    panels: list[Panel | Difference | None] = []
    for own, with_own, with_other in ((0, 0, 1), (1, 3, 2)):
        panels.append(Panel(f"{'AB'[own]}: {titles[own]}", pair[own].samples, rate))
        for i, other in ((with_own, own), (with_other, 1 - own)):
            files.append(f"{'ab'[own]}-{stems[own]}-with-{latents}-of-{'ab'[other]}.wav")
            write_sound(out / files[-1], samples[i] / scale, rate)
            panels.append(Panel(f"{'AB'[own]} with {latents} of {'AB'[other]}", samples[i], rate))
        title = f"{'AB'[own]}: with {latents} of {'AB'[1 - own]} less with its own"
        panels.append(Difference(title, samples[with_other], samples[with_own], rate))
    return [*files, "exchange.png"], spectrogram_panels(panels, columns=4, heading=heading)
