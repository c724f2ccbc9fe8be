"""Blizzard Challenge 2013: audiobooks of one reader, as segments (wav) or whole chapters (mp3, or decoded mp3).

``ROOT`` is any tree of audio. Folders ``train/``, ``valid/`` and ``test/`` define the split; without them 10 % of the
files are for test and 5 % of the others for validation, as in the public code of MS-STCN (Andersson et al., 2021),
drawn by the seed.

Decoding an mp3 adds zeros before and after the sound, on which densities would diverge: samples that are zero in 16
bits are cut at both ends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from corpora.audio.io import read_audio
from corpora.recipes.folder import corpus_root, find_audio, open_folder
from corpora.recipes.layouts.assignment import seeded_split
from corpora.recipes.layouts.table import NONE
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Frames, Sound, Utterance
from dvae_pyro.errors import UserError

__all__ = ["SHARES", "open_blizzard2013", "without_edges"]

#: Fraction of all files for test, then of the remaining ones for validation.
SHARES = {"test": 0.1, "valid": 0.05}

HALF_A_STEP = 0.5 / 2**15


def open_blizzard2013(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the audio below ``data.root``."""
    root = corpus_root(settings)
    if any((root / split).is_dir() for split in SPLITS) and settings.layout != NONE:
        corpus = open_folder(settings, seed, needed)
        corpus.name = "blizzard2013"
        for split, utterances in corpus.splits.items():
            corpus.splits[split] = [_cut(replace(utterance, speaker="")) for utterance in utterances]
        corpus.notes = {}
        return corpus
    files = find_audio(root, root)
    if len(files) < 3:
        raise UserError(
            f"{root} has {len(files)} audio file(s), too few to split into train, valid and test.\n"
            "Give the folder of the segments (wav) or chapters (mp3) of Blizzard 2013 as --root."
        )
    parts = seeded_split(files, seed, SHARES)
    corpus = Corpus("blizzard2013", str(root), {})
    for split in needed:
        corpus.splits[split] = [
            _cut(Utterance(file, "", functools.partial(read_audio, root / file))) for file in parts[split]
        ]
        corpus.notes[split] = [f"split by seed {seed}: {len(parts[split])} of {len(files)} files"]
    return corpus


def without_edges(sound: Sound) -> Sound:
    """A recording without leading and trailing samples that are zero in 16 bits, in all channels.

    Example:
        >>> without_edges(Sound(np.array([[0.0], [1e-6], [0.2], [0.0], [-0.1], [0.0]]), 16000)).samples[:, 0].tolist()
        [0.2, 0.0, -0.1]
    """
    nonzero = np.flatnonzero((np.abs(sound.samples) >= HALF_A_STEP).any(axis=1))
    first, last = (nonzero[0], nonzero[-1] + 1) if len(nonzero) else (0, 0)
    return Sound(sound.samples[first:last], sound.rate) if len(nonzero) else sound


def _cut(utterance: Utterance) -> Utterance:
    return replace(utterance, load=functools.partial(_load, utterance.load))


def _load(load: Callable[[], Sound | Frames]) -> Sound | Frames:
    recording = load()
    return without_edges(recording) if isinstance(recording, Sound) else recording
