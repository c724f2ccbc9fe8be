r"""The table of folder layouts of speech corpora, by which a folder of audio is identified from its paths alone.

A layout is a regular expression for the end of a path, beginning at the folder (or file name) that names the speaker.
The folders before it define the split by a word of `SPLIT_WORDS` in their names (``train-clean-360``, ``Dev``). For a
corpus whose splits are not folders, the layout has a function that reads its lists. `recognition.py` applies the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from corpora.recipes.layouts.split_lists import Listed, common_voice_lists, speechocean_lists

__all__ = ["LAYOUTS", "NEVER", "NONE", "SPLITS_AT_TOP", "SPLIT_WORDS", "Layout", "LeftOut", "split_of"]

#: Words in names of folders that mean a split. ``eval`` means test if another folder is valid and none is test.
SPLIT_WORDS = {
    "train": ("train", "training", "trainset"),
    "valid": ("valid", "val", "dev", "devel", "devset", "development", "validation", "eval", "evaluation"),
    "test": ("test", "testing", "testset"),
}


def split_of(word: str) -> str:
    """The split that a word means on a command line: ``dev`` and ``val`` are ``valid``; other words are unchanged.

    Example:
        >>> [split_of(word) for word in ("dev", "Val", "test", "eval", "tset")]
        ['valid', 'valid', 'test', 'eval', 'tset']
    """
    splits = [split for split, words in SPLIT_WORDS.items() if word.lower() in words and not word.startswith("eval")]
    return splits[0] if splits else word


#: ``data.layout=none``: no layout. All files are split by the seed.
NONE = "none"
#: ``data.layout=splits``: any tree with folders of splits at the top.
SPLITS_AT_TOP = "splits"
#: A regular expression that matches nothing.
NEVER = r"(?!)"


class LeftOut(NamedTuple):
    """Files of a corpus that are omitted: a regular expression for their paths, and the reason."""

    paths: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """One row of the table; all expressions ignore case.

    Attributes:
        title: The corpus's name.
        tail: End of a path without its ending. Group ``speaker`` is the speaker (without it there is one speaker);
            ``take`` distinguishes recordings of one utterance, of which the first is read.
        example: A path that it matches, for messages.
        root: Name of a root that defines the split of all files below it.
        words: Words with another split than in `SPLIT_WORDS`.
        left_out: Files that are omitted.
        test_speakers: Test speakers if no folder defines a split; the others are training speakers.
        lists: Reads split and speaker of each file from lists in the corpus; files in no list are omitted.
        loader: Corpus (``--corpus``) whose loader reads this layout.
    """

    title: str
    tail: str
    example: str
    root: str = NEVER
    words: Mapping[str, str] = field(default_factory=dict)
    left_out: LeftOut = LeftOut(NEVER, "")
    test_speakers: str | None = None
    lists: Callable[[Path, Sequence[str]], dict[str, Listed]] | None = None
    loader: str | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The expression for a whole path relative to the root; group ``before`` is the part before the tail."""
        return re.compile(rf"(?P<before>(?:[^/]+/)*){self.tail}\.\w+", re.IGNORECASE)


_LIBRISPEECH_SUBSET = r"(train|dev|test)-(clean|other)(-\d+)?"

#: Layouts by name, as for ``data.layout``. The first one that matches all files is used.
LAYOUTS: dict[str, Layout] = {
    "librispeech": Layout(
        "LibriSpeech",
        r"(?P<speaker>\d+)/(?P<chapter>\d+)/(?P=speaker)-(?P=chapter)-\d+",
        "train-clean-100/19/198/19-198-0000.flac",
        root=_LIBRISPEECH_SUBSET,
    ),
    "libritts": Layout(
        "LibriTTS",
        r"(?P<speaker>\d+)/(?P<chapter>\d+)/(?P=speaker)_(?P=chapter)_\d+_\d+",
        "train-clean-100/19/198/19_198_000000_000000.wav",
        root=_LIBRISPEECH_SUBSET,
    ),
    "mls": Layout(
        "Multilingual LibriSpeech",
        r"(?P<speaker>\d+)/(?P<chapter>\d+)/(?P=speaker)_(?P=chapter)_\d+",
        "train/audio/1085/1101/1085_1101_000000.flac",
    ),
    "vctk": Layout(
        "VCTK",
        r"(?P<speaker>[ps]\d+)/(?P=speaker)_\d+(?P<take>_mic\d)?",
        "wav48_silence_trimmed/p225/p225_001_mic1.flac",
    ),
    "common_voice": Layout(
        "Common Voice",
        r"clips/common_voice_[^/]+",
        "clips/common_voice_en_1.mp3",
        lists=common_voice_lists,
    ),
    "ljspeech": Layout("LJSpeech", r"(?:wavs/)?LJ\d{3}-\d{4}", "LJSpeech-1.1/wavs/LJ001-0001.wav"),
    "aishell": Layout(
        "AISHELL-1",
        r"(?P<speaker>S\d{4})/BAC\d+(?P=speaker)W\d+",
        "wav/train/S0002/BAC009S0002W0122.wav",
    ),
    "voxceleb": Layout(
        "VoxCeleb",
        r"(?P<speaker>id\d{5})/[^/]+/\d+",
        "dev/wav/id10001/1zcIwhmdeo4/00001.wav",
        words={"dev": "train"},
        test_speakers=r"id102[7-9]\d|id1030\d",  # the 40 of VoxCeleb1's test list, 10270 to 10309
    ),
    "arctic": Layout(
        "CMU Arctic",
        r"(?:cmu_us_)?(?P<speaker>[^/]+?)(?:_arctic)?/(?:wav|orig)/arctic_[ab]\d{4}",
        "cmu_us_bdl_arctic/wav/arctic_a0001.wav",
        left_out=LeftOut(r"(.*/)?orig/[^/]+", "in orig/ (as recorded; wav/ has the same sentences)"),
    ),
    "timit": Layout(
        "TIMIT",
        r"(?:train|test)/dr\d/(?P<speaker>[fm][a-z]{3}\d)/s[aix]\d+(?:\.wav)?",
        "TRAIN/DR1/FCJF0/SX217.WAV",
        loader="timit",
    ),
    "voicebank": Layout(
        "VoiceBank",
        r"clean_(?:train|test)set(?:_28spk)?_wav/(?P<speaker>[ps]\d+)_\d+",
        "clean_trainset_28spk_wav/p226_001.wav",
        loader="voicebank",
    ),
    "wsj0": Layout(
        "WSJ0",
        r"si_(?:tr_s|dt_05|et_05)/(?P<speaker>[^/]+)/[^/]+",
        "si_tr_s/011/011c0201.wv1",
        loader="wsj0",
    ),
    "speechocean762": Layout(
        "speechocean762",
        r"(?:WAVE/)?(?P<speaker>SPEAKER\d+)/\d+",
        "WAVE/SPEAKER0001/000010011.WAV",
        lists=speechocean_lists,
    ),
}
