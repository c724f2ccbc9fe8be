"""The built-in corpus: synthetic speech whose speakers and words are known.

``python -m corpora.synthetic --picture FILE`` draws two speakers saying the same sentence;
``python -m corpora.synthetic --audio DIR`` writes the corpus as WAV files, in the layout of corpus ``folder``.

Labels of an utterance: ``pitch_hz``, ``tract_length`` (cm) and ``breathiness`` of its speaker, and ``content``, the list
of its phones as (name, start, end) in samples, end exclusive.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from corpora.audio import Sound
from corpora.corpus import SPLITS, Corpus, Utterance
from corpora.phones import Spoken, random_sentence
from corpora.settings import DataSettings
from corpora.source_filter import Speaker, speak, step_samples
from inference.errors import UserError

__all__ = ["SIZES", "Placed", "Size", "draw_speakers", "open_synthetic", "place"]


class Size(NamedTuple):
    """How large a split is."""

    speakers: int
    utterances_each: int


#: About 6 minutes to train, 40 s to validate and to test.
SIZES: dict[str, Size] = {"train": Size(20, 4), "valid": Size(3, 3), "test": Size(3, 3)}

SHORTEST_CM, LONGEST_CM = 13.5, 18.5
LOWEST_HZ, OCTAVES = 88.0, 1.45


class Placed(NamedTuple):
    """A phone in an utterance: from sample `start` to before sample `end`."""

    name: str
    start: int
    end: int


def open_synthetic(
    settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS, sizes: dict[str, Size] | None = None
) -> Corpus:
    """Make the corpus of a seed: who says what is settled here, the sound is made when it is loaded."""
    if settings.root is not None:
        raise UserError(
            f"corpus 'synthetic' is built in and reads no folder, got root {settings.root}.\n"
            "To read that folder give --corpus folder, else leave out --root (data.root=null)."
        )
    if settings.rate < 4000:
        raise UserError(f"data.rate: got {settings.rate} Hz, synthetic speech needs 4000 or more.")
    sizes = SIZES if sizes is None else sizes
    speakers = draw_speakers(seed, {split: size.speakers for split, size in sizes.items()})
    corpus = Corpus("synthetic", "", {})
    for split in needed:
        corpus.splits[split] = [
            _utterance(split, speaker, index, settings.rate, seed)
            for speaker in speakers[split]
            for index in range(sizes[split].utterances_each)
        ]
    return corpus


def draw_speakers(seed: int, counts: dict[str, int]) -> dict[str, list[Speaker]]:
    """Speakers for each split, none in two of them, each split spread evenly over all voices.

    Shorter vocal tracts go with higher pitch, as in people, but only by half: the rest is the speaker's own.
    """
    shift = torch.rand(3, generator=_generator(seed, "speakers"), dtype=torch.float64)
    # Steps of an additive recurrence that fills a cube evenly (powers of the root of x^4 = x + 1).
    strides = 1.2207440846057596 ** -torch.arange(1, 4, dtype=torch.float64)
    speakers: dict[str, list[Speaker]] = {}
    number = 0
    for split, count in counts.items():
        speakers[split] = []
        for _ in range(count):
            tract, own, breath = ((shift + number * strides) % 1.0).tolist()
            pitch = LOWEST_HZ * 2 ** (OCTAVES * (0.5 * (1 - tract) + 0.5 * own))
            length = SHORTEST_CM + (LONGEST_CM - SHORTEST_CM) * tract
            speakers[split].append(Speaker(f"s{number:03d}", pitch, length, breath))
            number += 1
    return speakers


def place(sentence: Sequence[Spoken], rate: int) -> list[Placed]:
    """Where the phones of a sentence lie, in samples."""
    placed: list[Placed] = []
    start = 0
    for phone in sentence:
        end = start + phone.steps * step_samples(rate)
        placed.append(Placed(phone.name, start, end))
        start = end
    return placed


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _utterance(split: str, speaker: Speaker, index: int, rate: int, seed: int) -> Utterance:
    file = f"{split}/{speaker.name}/{speaker.name}-{index:03d}.wav"
    sentence = random_sentence(_generator(seed, file, "content"))
    labels = {
        "pitch_hz": speaker.pitch_hz,
        "tract_length": speaker.tract_length,
        "breathiness": speaker.breathiness,
        "content": place(sentence, rate),
    }
    return Utterance(file, speaker.name, functools.partial(_say, speaker, sentence, rate, seed, file), labels)


def _say(speaker: Speaker, sentence: Sequence[Spoken], rate: int, seed: int, file: str) -> Sound:
    return Sound(speak(speaker, sentence, rate, _generator(seed, file, "sound"))[:, None], rate)
