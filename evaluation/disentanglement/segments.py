"""Single segments of utterances, for pictures of what their latents hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.base import FrontEnd
from corpora.frontends.registry import open_frontend
from corpora.frontends.stft import Stft
from corpora.loading.sequences import load_split
from corpora.registry import open_corpus
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import say
from evaluation.reporting.panels import find_utterance
from inference.prediction.reconstruction import decode, infer
from inference.runs import pick_dtype

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = ["Segment", "chosen", "decoded", "drawable", "inferred", "one_of_each_speaker"]


class Segment(NamedTuple):
    """A full segment of an utterance.

    Attributes:
        file: the utterance.
        speaker: who speaks.
        start: its first frame.
        x: its frames (S, D).
        domain: the label of that name; empty where the corpus has no domains.
    """

    file: str
    speaker: str
    start: int
    x: Tensor
    domain: str = ""

    @property
    def label(self) -> str:
        """The speaker, and the domain where there are several; where there is no speaker the file's name."""
        domain = "\n" + self.domain.replace("+", " +\n") if self.domain else ""
        return (self.speaker or Path(self.file).stem) + domain

    def described(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"file": self.file, "speaker": self.speaker, "first_frame": self.start, "frames": len(self.x)}


def one_of_each_speaker(utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    """The first utterance of each speaker, then the second of each, and so on.

    Example:
        >>> [u.file for u in one_of_each_speaker([Utterance(f, f[0], list) for f in ("a1", "a2", "b1", "a3")])]
        ['a1', 'b1', 'a2', 'a3']
    """
    of_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        of_speaker.setdefault(utterance.speaker, []).append(utterance)
    for place in range(max(map(len, of_speaker.values()), default=0)):
        yield from (of_one[place] for of_one in of_speaker.values() if place < len(of_one))


def chosen(
    run: Run, split: str, wanted: Mapping[str, tuple[Sequence[str], int]], at: float | None
) -> dict[str, list[Segment]]:
    """Segments of utterances of the run's corpus: of each the loudest, by the mean of its features.

    Args:
        run: a run of a model of segments.
        split: which part of its corpus.
        wanted: by option, names of utterances, and how many others to take where none is named: of as many speakers as
            there are, and none twice, as far as the split has them.
        at: take the segment so many seconds after the beginning of each.

    Raises:
        UserError: The model has no segments, there is no such utterance, or none is long enough.
    """
    size, data = run.model.segment, run.settings.data
    if size is None:
        raise UserError(
            f"{run.path} is a run of model '{run.settings.model.name}', which has no latents of segments. Train one: "
            "python -m inference.svi --model fhvae"
        )
    corpus = open_corpus(data, data.seed, needed=[split])
    others = list(one_of_each_speaker(corpus.splits[split]))
    place, taken = f"split '{split}' of {run.path}'s corpus", 0
    files: dict[str, list[Utterance]] = {}
    for option, (names, count) in wanted.items():
        if count < 1:
            raise UserError(f"{option}: got {count}, expected 1 or more.")
        files[option] = [find_utterance(others, name, option, place) for name in names]
        if not names:
            files[option] = [others[(taken + i) % len(others)] for i in range(min(count, len(others)))]
            taken += len(files[option])
    frontend = open_frontend(data, run.settings.model.bins)
    needed = {utterance.file: utterance for of_option in files.values() for utterance in of_option}
    few = Corpus(corpus.name, corpus.root, {split: list(needed.values())})
    whole = {item.file: item for item in load_split(few, split, frontend, replace(data, cache=None), say)}
    found = {file: _segment(item.x, size, at, frontend, item.file) for file, item in whole.items()}
    return {
        option: [Segment(u.file, u.speaker, *found[u.file], str(u.labels.get("domain", ""))) for u in of_option]
        for option, of_option in files.items()
    }


def _segment(x: Tensor, size: int, at: float | None, frontend: FrontEnd, file: str) -> tuple[int, Tensor]:
    if at is not None and not isinstance(frontend, Stft):
        raise UserError("--at: this corpus holds frames and no seconds. Leave it out: the loudest segment is taken.")
    start = 0
    if at is not None and isinstance(frontend, Stft):
        start = round(at * frontend.rate / frontend.hop)
    elif len(x) >= size:
        start = int(x.unfold(0, size, 1).mean((1, 2)).argmax())
    if start < 0 or start + size > len(x):
        raise UserError(f"{file} has {len(x)} frames, no segment of {size} from frame {start}. Name another utterance.")
    return start, x[start : start + size]


def inferred(run: Run, segments: Sequence[Segment]) -> dict[str, Tensor]:
    """The means of the latents of segments, (K, L) by name, each segment taken for a sequence of its own."""
    x = torch.stack([segment.x for segment in segments], 1)
    x = x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    return infer(run.model, run.guide, x, torch.full((x.shape[1],), len(x)))


def decoded(run: Run, latents: Mapping[str, Tensor], at_once: int = 2048) -> NDArray[np.float64]:
    """What the model makes of latents (K, L) of segments: frames (K, S, D)."""
    made = []
    for first in range(0, len(latents["z1"]), at_once):
        few = {name: value[first : first + at_once] for name, value in latents.items()}
        lengths = torch.full((len(few["z1"]),), run.settings.model.segment)
        x = few["z1"].new_ones(run.settings.model.segment, len(lengths), run.settings.model.bins)
        made.append(decode(run.model, few, x, lengths).transpose(0, 1).double().cpu())
    return torch.cat(made).numpy()


def drawable(run: Run, frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frames as they are drawn: power spectra in dB, other features, which are logarithms, as they are."""
    if run.settings.model.likelihood != "power_spectrum":
        return frames
    found: NDArray[np.float64] = 10.0 * np.log10(np.maximum(frames, 1e-10))
    return found
