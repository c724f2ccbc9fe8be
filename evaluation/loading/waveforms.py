"""Sounds of a run: its front end, whole utterances with their spectra, and power spectra of what a model generates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from corpora.registry import holds_frames
from corpora.types import AudioFault, Utterance, refusal
from dvae_pyro.errors import UserError
from inference.runs import Run

__all__ = ["FileLog", "SoundItem", "as_power", "find_sound_frontend", "read_sounds", "sound_frontend"]


class SoundItem(NamedTuple):
    """A whole utterance, ready to be encoded.

    Attributes:
        number: Its position in the list of utterances.
        file: Its name.
        speaker: Its speaker.
        samples: Samples (n,), trimmed and divided by the largest absolute value.
        spectrum: Complex spectrum (T, F).
        x: Features (T, D).
    """

    number: int
    file: str
    speaker: str
    samples: NDArray[np.float64]
    spectrum: NDArray[np.complex128]
    x: Tensor


@dataclass
class FileLog:
    """What happened to the files that were read.

    Attributes:
        broken: The fault of each file that was skipped, by its name.
        rates: Number of files by sampling rate in Hz.
        mixed: Number of files with several channels.
    """

    broken: dict[str, str] = field(default_factory=dict)
    rates: Counter[int] = field(default_factory=Counter)
    mixed: int = 0

    def lines(self, rate: int) -> list[str]:
        """One line for each kind of event; `rate` is the rate that files were resampled to."""
        notes = [f"resampled {n} files from {r} Hz to {rate} Hz" for r, n in sorted(self.rates.items()) if r != rate]
        if self.mixed:
            notes.append(f"mixed {self.mixed} files from several channels to mono")
        if self.broken:
            names = ", ".join(f"{file} ({fault})" for file, fault in self.broken.items())
            notes.append(f"skipped {len(self.broken)} broken files: {names}")
        return notes


def find_sound_frontend(run: Run) -> Stft | None:
    """The front end of a run if its features can be inverted to a waveform; None for other data."""
    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    return frontend if isinstance(frontend, Stft) else None


def sound_frontend(run: Run) -> Stft:
    """The front end of a run whose features can be inverted to a waveform.

    Raises:
        UserError: The features of the run cannot be inverted.
    """
    frontend = find_sound_frontend(run)
    if frontend is not None:
        return frontend
    data = run.settings.data
    if holds_frames(data):
        raise UserError(
            f"{run.path} is of corpus '{data.corpus}', which contains no sound: there is no waveform to compute.\n"
            f"Estimate the likelihood of its held-out data instead: python -m evaluation.likelihood {run.path}"
        )
    raise UserError(
        f"{run.path} has data.frontend={data.frontend}, which cannot be inverted to a waveform.\n"
        "Give a run with data.frontend=stft."
    )


def read_sounds(utterances: Iterable[Utterance], frontend: Stft, on_error: str, log: FileLog) -> Iterator[SoundItem]:
    """Read whole utterances.

    Args:
        utterances: What to read.
        frontend: Computes features and spectrum.
        on_error: ``"error"`` stops at a broken file, ``"skip"`` records it in `log`.
        log: Records what happened to each file.

    Raises:
        UserError: A file is broken and `on_error` is ``"error"``.
    """
    for number, utterance in enumerate(utterances):
        try:
            sound = utterance.sound()
            samples = frontend.prepare(sound)
        except AudioFault as fault:
            if on_error == "error":
                raise refusal(utterance.file, fault.fault) from None
            log.broken[utterance.file] = fault.fault
            continue
        log.rates[sound.rate] += 1
        log.mixed += sound.samples.shape[1] > 1
        x = torch.from_numpy(frontend.features(samples))
        yield SoundItem(number, utterance.file, utterance.speaker, samples, frontend.spectrum(samples), x)


def as_power(frontend: Stft, features: Tensor) -> Tensor:
    """Power spectra (N, T, F) of features (N, T, D)."""
    power = np.stack([frontend.power(frames) for frames in features.cpu().numpy()])
    return torch.from_numpy(power).to(features)
