"""The work of `evaluation.convert`: a source decoded with the latent of the sequence of a reference."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from evaluation.disentanglement.pairs import UNUSED_DB, decibels, exchanged, open_pair, pair_report, short_names, sounds
from evaluation.reporting.audio import peak, write_sound
from evaluation.reporting.command_line import Request, say
from evaluation.reporting.outputs import Outputs
from evaluation.reporting.plots import Difference, Panel, spectrogram_panels
from evaluation.reporting.provenance import caption
from evaluation.reporting.report import mode_text
from inference.prediction.reconstruction import infer
from inference.runs import Run

__all__ = ["run_conversion", "way_to_the_reference"]


def run_conversion(request: Request, options: argparse.Namespace) -> None:
    """Convert, write sound, picture and report, and print how far the conversion moves.

    Raises:
        UserError: ``--out`` is not a .wav file.
    """
    out: Path = options.out
    if out.suffix.lower() != ".wav":
        raise UserError(f"--out {out}: expected the name of a .wav file.")
    files = {"--source": options.source, "--reference": options.reference}
    run, names, frontend, (source, reference) = open_pair(request, files)
    outputs = Outputs(out.parent, out.stem, request)
    outputs.refuse_overwriting()
    report = pair_report("convert", run, request, options.phase)
    decoded = exchanged(run, [source, reference], mode=report["mode"], latents=report["latents"])
    power, (reconstructed, converted) = sounds(frontend, [source, reference], decoded[:2], options.phase)
    figures = {"moved_db": decibels(*power)}
    if "mu2" in names:
        lengths = torch.tensor([len(source.x), len(source.x), len(reference.x)])
        figures["way_to_the_reference"] = way_to_the_reference(run, decoded[[0, 1, 3]], lengths)
    write_sound(out, converted / peak(converted), frontend.rate)
    latents, rate = ", ".join(names), frontend.rate
    source_name, reference_name = short_names([source, reference])
    panels = [
        Panel(f"source: {source_name}", source.samples, rate),
        Panel("source, reconstructed", reconstructed, rate),
        None,
        Panel(f"reference: {reference_name}", reference.samples, rate),
        Panel(f"source, converted: {latents} of the reference", converted, rate),
        Difference("converted less reconstructed", converted, reconstructed, rate),
    ]
    heading = f"{caption(run)}: conversion{mode_text(report)}"
    outputs.draw(spectrogram_panels(panels, columns=3, heading=heading))
    report |= {
        "source": source.file,
        "reference": reference.file,
        "converted": list(names),
        "metrics": {name: {"mean": value, "stderr": None} for name, value in figures.items()},
        "files": [out.name, outputs.picture.name],
    }
    outputs.write(report)
    print(f"{report['model']}: {source.file} with {latents} of {reference.file}")
    print(f"the conversion changes the spectrum by {figures['moved_db']:.2f} dB (RMS)", end="")
    way = figures.get("way_to_the_reference")
    print("" if way is None else f", and moves the s-vector {100.0 * way:.0f} % of the way to that of the reference")
    if figures["moved_db"] < UNUSED_DB:
        say(f"the change is negligible: this model does not use {latents}")
    say(f"wrote {out}, {outputs.picture.name} and {outputs.json.name}")


def way_to_the_reference(run: Run, decoded: Tensor, lengths: Tensor) -> float:
    r"""Projection of a conversion on the way from source to reference, in terms of s-vectors; 1 is the reference.

    .. math:: \frac{(\mu_2^{\mathrm{conv}} - \mu_2^{\mathrm{src}})^\top (\mu_2^{\mathrm{ref}} - \mu_2^{\mathrm{src}})}
        {\|\mu_2^{\mathrm{ref}} - \mu_2^{\mathrm{src}}\|^2}

    The s-vectors (Eq. 5) are inferred from decoded frames: the source decoded with its own mu_2, the source with that
    of the reference, and the reference with its own.

    Args:
        run: a run of a model with mu2.
        decoded: these three (3, T, D), zero beyond each length.
        lengths: their frames, (3,), on the CPU.
    """
    source, converted, reference = infer(run.model, run.guide, decoded.transpose(0, 1), lengths)["mu2"].double()
    way = reference - source
    return float((converted - source) @ way / (way @ way).clamp_min(1e-300))
