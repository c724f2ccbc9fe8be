"""Single segments of utterances: selection, inference of their latents, and decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.base import FrontEnd
from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from corpora.loading.sequences import load_split
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError
from evaluation.disentanglement.embeddings import segment_size
from evaluation.loading.splits import corpus_of, find_utterance
from evaluation.reporting.command_line import say
from inference.prediction.reconstruction import decode, infer
from inference.runs import Run, pick_dtype

__all__ = [
    "Segment",
    "axes_of",
    "colours_of",
    "decoded",
    "drawable",
    "inferred",
    "one_of_each_speaker",
    "select_segments",
]

AT_ONCE = 2048
"""Segments that are decoded together."""


class Segment(NamedTuple):
    """A full segment of an utterance.

    Attributes:
        file: name of the utterance.
        speaker: its speaker.
        start: first frame of the segment.
        x: frames of the segment (S, D).
        domain: the label "domain" of the utterance; empty if the corpus has no domains.
    """

    file: str
    speaker: str
    start: int
    x: Tensor
    domain: str = ""

    @property
    def label(self) -> str:
        """The speaker, or the file name if there is none, and the domain."""
        domain = "\n" + self.domain.replace("+", " +\n") if self.domain else ""
        return (self.speaker or Path(self.file).stem) + domain

    def described(self) -> dict[str, Any]:
        """The entry of the segment in a report."""
        return {"file": self.file, "speaker": self.speaker, "first_frame": self.start, "frames": len(self.x)}


def one_of_each_speaker(utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    """All utterances, in the order: the first of each speaker, the second of each, and so on.

    Example:
        >>> [u.file for u in one_of_each_speaker([Utterance(f, f[0], list) for f in ("a1", "a2", "b1", "a3")])]
        ['a1', 'b1', 'a2', 'a3']
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    for number in range(max(map(len, by_speaker.values()), default=0)):
        yield from (own[number] for own in by_speaker.values() if number < len(own))


def select_segments(
    run: Run, split: str, wanted: Mapping[str, tuple[Sequence[str], int]], at: float | None
) -> dict[str, list[Segment]]:
    """Select a segment of each of some utterances of the run's corpus.

    Args:
        run: a run of a model of segments.
        split: split of its corpus.
        wanted: by option, names of utterances, and how many utterances to select if no name is given: of as many
            speakers as possible, and different ones for each option as far as the split has them.
        at: start of the segments in seconds; None selects the segment with the largest mean of its features.

    Raises:
        UserError: The model has no segments, an utterance does not exist, or one is too short.
    """
    size, data = segment_size(run), run.settings.data
    corpus = corpus_of(run.settings, split)
    candidates = list(one_of_each_speaker(corpus.splits[split]))
    source, taken = f"split '{split}' of {run.path}'s corpus", 0
    utterances: dict[str, list[Utterance]] = {}
    for option, (names, count) in wanted.items():
        if count < 1:
            raise UserError(f"{option}: got {count}, expected 1 or more.")
        utterances[option] = [find_utterance(candidates, name, option, source) for name in names]
        if not names:
            selected = range(taken, taken + min(count, len(candidates)))
            utterances[option] = [candidates[i % len(candidates)] for i in selected]
            taken += len(selected)
    frontend = open_frontend(data, run.settings.model.bins)
    needed = {utterance.file: utterance for of_option in utterances.values() for utterance in of_option}
    few = Corpus(corpus.name, corpus.root, {split: list(needed.values())})
    frames = {item.file: item.x for item in load_split(few, split, frontend, replace(data, cache=None), say)}
    segments = {file: _segment(x, size, at, frontend, file) for file, x in frames.items()}
    return {
        option: [Segment(u.file, u.speaker, *segments[u.file], str(u.labels.get("domain", ""))) for u in of_option]
        for option, of_option in utterances.items()
    }


def _segment(x: Tensor, size: int, at: float | None, frontend: FrontEnd, file: str) -> tuple[int, Tensor]:
    """First frame and frames (S, D) of the segment of an utterance."""
    start = 0
    if at is not None:
        if not isinstance(frontend, Stft):
            raise UserError("--at: the frames of this corpus have no sampling rate. Omit --at.")
        start = round(at * frontend.rate / frontend.hop)
    elif len(x) >= size:
        start = int(x.unfold(0, size, 1).mean((1, 2)).argmax())
    if start < 0 or start + size > len(x):
        raise UserError(f"{file} has {len(x)} frames, no segment of {size} from frame {start}. Name another utterance.")
    return start, x[start : start + size]


def inferred(run: Run, segments: Sequence[Segment]) -> dict[str, Tensor]:
    """Posterior means of the latents of segments, (K, L) by name, each segment being a sequence of its own."""
    x = torch.stack([segment.x for segment in segments], 1)
    x = x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    return infer(run.model, run.guide, x, torch.full((x.shape[1],), len(x)))


def decoded(run: Run, latents: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """Frames (K, S, D) decoded from latents (K, L) of segments."""
    parts = []
    for first in range(0, len(latents["z1"]), AT_ONCE):
        few = {name: value[first : first + AT_ONCE] for name, value in latents.items()}
        lengths = torch.full((len(few["z1"]),), segment_size(run))
        x = few["z1"].new_ones(segment_size(run), len(lengths), run.settings.model.bins)
        parts.append(decode(run.model, few, x, lengths).transpose(0, 1).double().cpu())
    return torch.cat(parts).numpy()


def drawable(run: Run, frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frames for a picture: power spectra in dB; other features, which are logarithmic, unchanged."""
    if run.settings.model.likelihood != "power_spectrum":
        return frames
    return np.asarray(10.0 * np.log10(np.maximum(frames, 1e-10)))


def colours_of(run: Run) -> str:
    """What the colours of `drawable` frames are."""
    if run.settings.model.likelihood == "power_spectrum":
        return "power, dB"
    names = {"fbank": "log mel energy (fbank)", "log_magnitude": "log magnitude"}
    return names.get(run.settings.data.frontend, f"feature ({run.settings.data.frontend})")


def axes_of(run: Run) -> tuple[str, str]:
    """What time and frequency of a segment span."""
    frontend, size = open_frontend(run.settings.data, run.settings.model.bins), segment_size(run)
    if not isinstance(frontend, Stft):
        return f"{size} frames", f"{run.settings.model.bins} features"
    bands = "mel bands, " if run.settings.data.frontend == "fbank" else ""
    return f"{1000 * size * frontend.hop / frontend.rate:.0f} ms", f"{bands}0 to {frontend.rate / 2000:g} kHz"
