"""Prior knowledge of the noise: spectra W fitted to an interval without speech, or a DVAE trained on noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from corpora.frontends.stft import Stft
from dvae_pyro.errors import UserError
from evaluation.recordings.blocks import Block, Layout, transformed
from evaluation.recordings.files import Recording, read_mono
from evaluation.restoration.program import same_front_end
from evaluation.restoration.settings import RestorationSettings
from inference.observation.settings import NoiseSettings, fit_spectra, time_span
from inference.runs import load_run

if TYPE_CHECKING:
    from evaluation.enhance.command import Enhancement
    from inference.runs import Run

__all__ = ["check_reverb", "known_spectra", "open_noise"]


def check_reverb(given: Enhancement, settings: RestorationSettings) -> None:
    """Check that the options of a reverberant recording have a meaning.

    Raises:
        UserError: ``--inference smc``, or a setting of noise that is not stationary.
    """
    if given.observation != "reverb":
        return
    if "smc" in given.methods:
        raise UserError(
            "--observation reverb couples the frames of a recording, and --inference smc runs frame by frame. Use "
            "point, refine, vem, mala or metropolis."
        )
    default = NoiseSettings()
    names = {"rank": "rank", "shared": "shared", "span": "from", "model": "model"}
    changed = [f"noise.{names[key]}" for key in names if getattr(settings.noise, key) != getattr(default, key)]
    if changed:
        raise UserError(
            f"{', '.join(changed)}: --observation reverb has stationary noise, one variance in each bin, learned for "
            "each recording. Omit the setting; noise.gain and noise.floor remain."
        )


def open_noise(run: Run, given: Enhancement, settings: RestorationSettings) -> Run | None:
    """The run of ``noise.model``; None if it is not set."""
    if settings.noise.model is None:
        return None
    if given.evidence or "smc" in given.methods:
        raise UserError(
            "noise.model is not supported by --evidence and --inference smc, whose noise has no latents. Omit "
            "one of them."
        )
    noise_run = load_run(settings.noise.model, device=run.settings.device, overrides=[f"dtype={run.settings.dtype}"])
    same_front_end([run, noise_run], "noise.model:")
    return noise_run


def known_spectra(
    batch: Sequence[Block], cuts: dict[int, tuple[Recording, Layout]], frontend: Stft, settings: RestorationSettings
) -> list[Tensor] | None:
    """W of each block's noise, fitted to the interval ``noise.from`` of its recording; None if it is not set."""
    if settings.noise.span is None:
        return None
    start, end = time_span(settings.noise.span, "noise.from")
    found = []
    for block in batch:
        if block.scale == 0.0:
            continue
        recording, cut = cuts[block.recording]
        samples = read_mono(recording)[round(start * cut.rate) : round(end * cut.rate)]
        quiet = transformed(0, 0, samples, cut.rate, frontend) if len(samples) else None
        if quiet is None or quiet.scale == 0.0:
            raise UserError(
                f"noise.from={settings.noise.span}: {recording.path}, {cut.samples / cut.rate:.2f} s long, has no "
                "sound there. Give an interval that contains noise and no speech."
            )
        found.append(fit_spectra(quiet.x, settings.noise.rank))
    return found
