"""Free Spoken Digit Dataset: English digits, six speakers, 8 kHz.

    ROOT/.../<digit>_<speaker>_<take>.wav (or .flac)    anywhere below the root

The split is by takes, with all speakers in all splits: takes 0 to 4 of each digit are for test, as defined by the
corpus, 5 to 9 for validation, the others for training. ``data.subset=strings`` concatenates digits of one speaker to
strings of three to seven, each digit in `PASSES` strings, drawn by ``data.seed``. Fewer than three remaining digits of
a speaker are appended to the previous string.

Labels of an utterance: ``transcript``, the list of its digits ("0" to "9").
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from corpora.audio.io import mix_to_mono, read_audio, resample
from corpora.recipes.folder import corpus_root, find_audio
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Sound, Utterance
from dvae_pyro.errors import UserError

__all__ = ["PASSES", "TAKES", "joined", "open_fsdd"]

#: First and last take of each split; training has no last take.
TAKES = {"test": (0, 4), "valid": (5, 9), "train": (10, 10**9)}
#: Number of strings that each digit is in.
PASSES = 2
SHORTEST, LONGEST = 3, 7


def open_fsdd(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the recordings below ``data.root``; the seed draws the digits of each string.

    Raises:
        UserError: The subset is unknown, or a needed split has no recording.
    """
    if settings.subset not in (None, "strings"):
        raise UserError(
            f"data.subset={settings.subset}: expected null, single digits, or strings, digits of one speaker "
            "concatenated."
        )
    root = corpus_root(settings)
    read = functools.cache(read_audio)  # a digit is in several strings
    digits: dict[str, dict[str, list[Utterance]]] = {split: defaultdict(list) for split in SPLITS}
    for file in find_audio(root, root):
        match = re.fullmatch(r"(?:.*/)?(\d)_([^/_]+)_(\d+)\.\w+", file)
        if match is None:
            continue
        split = next(split for split, (first, last) in TAKES.items() if first <= int(match[3]) <= last)
        labels = {"transcript": [match[1]]}
        load = functools.partial(read, root / file)
        digits[split][match[2]].append(Utterance(file, match[2], load, labels, (root / file,)))
    corpus = Corpus("fsdd", str(root), {})
    for split in needed:
        by_speaker = digits[split]
        if not by_speaker:
            first, last = TAKES[split]
            raise UserError(
                f"no take {first} to {last} (split {split}) below {root}: expected files such as "
                f"george/7_george_{first}.flac.\nGive the folder with the recordings of fsdd as --root."
            )
        utterances = [utterance for speaker in sorted(by_speaker) for utterance in by_speaker[speaker]]
        corpus.notes[split] = []
        if settings.subset == "strings":
            corpus.notes[split] = [f"{len(utterances)} digits, each in {PASSES} strings of {SHORTEST} to {LONGEST}"]
            utterances = [u for speaker in sorted(by_speaker) for u in _strings(by_speaker[speaker], split, seed)]
        corpus.splits[split] = utterances
    return corpus


def joined(parts: Sequence[Utterance]) -> Sound:
    """Recordings concatenated, mixed to mono, at the sampling rate of the first."""
    sounds = [part.sound() for part in parts]
    rate = sounds[0].rate
    mono = [resample(mix_to_mono(sound.samples), sound.rate, rate) for sound in sounds]
    return Sound(np.concatenate(mono)[:, None], rate)


def _strings(digits: Sequence[Utterance], split: str, seed: int) -> list[Utterance]:
    """The strings of one speaker."""
    speaker = digits[0].speaker
    digest = hashlib.sha256(f"{seed}/{split}/{speaker}/strings".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    strings: list[list[Utterance]] = []
    for _ in range(PASSES):
        order = [digits[n] for n in torch.randperm(len(digits), generator=generator).tolist()]
        while order:
            size = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=generator))
            size = len(order) if len(order) - size < SHORTEST else size
            strings.append(order[:size])
            order = order[size:]
    utterances = []
    for number, parts in enumerate(strings):
        transcript = [digit for part in parts for digit in cast("list[str]", part.labels["transcript"])]
        file = f"{split}/{speaker}/{number:03d}_{''.join(transcript)}.wav"
        source = tuple(path for part in parts for path in part.source)
        labels = {"transcript": transcript}
        utterances.append(Utterance(file, speaker, functools.partial(joined, parts), labels, source))
    return utterances
