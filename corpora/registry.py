"""Corpora: named collections of utterances in splits, and the registry of their loaders.

A further corpus is a further module with a function ``open_NAME(settings, seed, needed) -> Corpus`` and one
line in `CORPORA`. No sound is read from an utterance's file before its `Utterance.load` is called.

A corpus may hold frames in place of sound (piano rolls, pen strokes, features computed elsewhere): its `Utterance.load`
gives `Frames`, and its line in `CORPUS_DEFAULTS` has the front end ``frames``, which passes them on as they are.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from corpora.audio.io import one_channel
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Frames, Sound, Utterance
from dvae_pyro.errors import UserError, nearest

__all__ = [
    "CORPORA",
    "CORPUS_DEFAULTS",
    "SETS",
    "Frames",
    "Sound",
    "check_data",
    "holds_frames",
    "open_corpus",
]


#: Loader of each corpus as ``"module:function"``, imported when it is asked for.
CORPORA: dict[str, str] = {
    "synthetic": "corpora.recipes.synthetic.corpus:open_synthetic",
    "bouncing_ball": "corpora.recipes.bouncing_ball:open_bouncing_ball",
    "folder": "corpora.recipes.folder:open_folder",
    "wsj0": "corpora.recipes.wsj0:open_wsj0",
    "voicebank": "corpora.recipes.voicebank:open_voicebank",
    "timit": "corpora.recipes.timit:open_timit",
    "aurora4": "corpora.recipes.aurora4:open_aurora4",
    "kaldi": "corpora.recipes.kaldi:open_kaldi",
    "fsdd": "corpora.recipes.fsdd:open_fsdd",
    "polyphonic": "corpora.recipes.polyphonic:open_polyphonic",
    "blizzard2013": "corpora.recipes.blizzard2013:open_blizzard2013",
    "strokes": "corpora.recipes.strokes:open_strokes",
    "lhotse": "corpora.recipes.lhotse.recipe:open_lhotse",
    "iam_ondb": "corpora.recipes.iam_ondb:open_iam_ondb",
}

#: What corpora of pen strokes imply; their data are standardised by training statistics (`model.normalise`).
_OF_PENS = {
    "data.frontend": "frames",
    "data.trim_db": None,
    "data.sequence_frames": None,
    "data.dequantise": "all",
    "model.bins": 3,
    "model.input": "raw",
    "model.likelihood": "pen",
    "model.normalise": True,
}

#: Settings that a corpus implies, by dotted key, over those of the model: what its frames are, and what suits them.
CORPUS_DEFAULTS: dict[str, Mapping[str, Any]] = {
    "polyphonic": {
        "data.frontend": "frames",
        "data.trim_db": None,
        "data.sequence_frames": None,
        "model.bins": 88,
        "model.input": "raw",
        "model.likelihood": "bernoulli",
    },
    "bouncing_ball": {
        "data.frontend": "frames",
        "data.trim_db": None,
        "data.sequence_frames": None,
        "model.bins": 1024,
        "model.input": "raw",
        "model.likelihood": "bernoulli",
    },
    "fsdd": {"data.rate": 8000},
    "strokes": _OF_PENS,
    "iam_ondb": _OF_PENS,
    "blizzard2013": {"data.frontend": "waveform"},
}

#: Corpora that come in several sets, of which ``data.subset`` names one, with examples of their names.
SETS: dict[str, Sequence[str]] = {
    "timit": ("with_sa",),
    "aurora4": ("multi", "clean", "dev"),
    "fsdd": ("strings",),
    "polyphonic": ("JSB_Chorales", "Nottingham", "Piano_midi", "MuseData"),
}

#: Corpora that hold sound, frames or both: frames are read where ``data.frontend=frames`` asks for them.
BOTH = ("kaldi",)

#: Corpora that any tree of audio can be: ``data.layout`` and ``data.speaker_level`` say how it is read.
OF_FOLDERS = ("folder", "blizzard2013")

#: What only the way from sound to frames reads, and the values that say nothing.
OF_SOUND = {"rate": 16000, "channel": None, "window": None, "hop": None, "trim_db": None}


def open_corpus(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the utterances of the corpus that the settings name.

    Args:
        settings: The ``data`` settings.
        seed: Decides what is left to chance: the split of a folder without one, the synthetic speech.
        needed: Splits that must be there; others are not looked for.

    Raises:
        UserError: The name is unknown, the root is missing, or a needed split has no utterance.
    """
    if settings.corpus not in CORPORA:
        raise UserError(
            f"unknown corpus {settings.corpus!r}, expected one of {', '.join(sorted(CORPORA))}."
            f"{nearest(settings.corpus, CORPORA)}"
        )
    for split in needed:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}, expected one of {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
    module, function = CORPORA[settings.corpus].split(":")
    corpus: Corpus = getattr(importlib.import_module(module), function)(settings, seed, needed)
    if settings.channel is not None:
        for split, utterances in corpus.splits.items():
            corpus.splits[split] = [_in_channel(utterance, settings.channel) for utterance in utterances]
    if settings.conditions is None:
        return corpus
    from corpora.audio.conditions import in_domains

    return in_domains(corpus, settings.conditions, seed)


def _in_channel(utterance: Utterance, channel: int) -> Utterance:
    load = functools.partial(one_channel, utterance.load, channel)
    return replace(utterance, load=load, source=(*utterance.source, channel) if utterance.source else ())


def holds_frames(settings: DataSettings) -> bool:
    """Whether a corpus holds frames in place of sound; of one that holds both, whether its frames are asked for."""
    if settings.corpus in BOTH:
        return settings.frontend == "frames"
    return CORPUS_DEFAULTS.get(settings.corpus, {}).get("data.frontend") == "frames"


def check_data(settings: DataSettings) -> None:
    """Refuse settings that the corpus does not read, or that do not go with what it holds.

    Raises:
        UserError: A set of a corpus that has none, settings of sound for a corpus of frames, or the reverse.
    """
    name = settings.corpus
    if settings.subset is not None and name not in SETS:
        known = ", ".join(f"{corpus} (such as {sets[0]})" for corpus, sets in SETS.items())
        raise UserError(
            f"data.subset={settings.subset}: corpus '{name}' does not come in sets; those that do: {known}.\n"
            "Leave data.subset out (data.subset=null), or name another --corpus."
        )
    if settings.dequantise is not None and "data.dequantise" not in CORPUS_DEFAULTS.get(name, {}):
        known = ", ".join(corpus for corpus, implied in CORPUS_DEFAULTS.items() if "data.dequantise" in implied)
        raise UserError(
            f"data.dequantise={settings.dequantise} says nothing: corpus '{name}' lies on no grid; those that do: "
            f"{known}.\n"
            "Leave data.dequantise out (data.dequantise=null), or name another --corpus."
        )
    for key in ("layout", "speaker_level"):
        if getattr(settings, key) is not None and name not in OF_FOLDERS:
            raise UserError(
                f"data.{key}={getattr(settings, key)} has no effect: corpus '{name}' is read by its own loader.\n"
                f"Leave it out (data.{key}=null), or give --corpus folder."
            )
    chosen = next((split for split in SPLITS if getattr(settings.cuts, split) is not None), None)
    if chosen is not None and name != "lhotse":
        raise UserError(
            f"data.cuts.{chosen} has no effect: corpus '{name}' is not read from cuts. Give --corpus lhotse."
        )
    frames = holds_frames(settings)
    if settings.conditions is not None:
        from corpora.audio.conditions import check_domains

        check_domains(settings.conditions)
        if frames:
            raise UserError(
                f"data.conditions={settings.conditions}: corpus '{name}' holds frames, and domains are made from "
                f"sound. "
                "Leave it out."
            )
    if frames != (settings.frontend == "frames"):
        holds, remedy = ("frames, no sound", "data.frontend=frames") if frames else ("sound", "data.frontend=stft")
        raise UserError(
            f"data.frontend={settings.frontend}: corpus '{name}' holds {holds}.\n"
            f"Set {remedy} (and data.trim_db and model.bins to match), or name another --corpus."
        )
    waveform = settings.frontend == "waveform"
    for key in ("window", "hop") if waveform else ("frame_width",):
        if getattr(settings, key) is not None:
            raise UserError(
                f"data.{key}={getattr(settings, key)} says nothing with data.frontend={settings.frontend}: "
                + ("frames of a waveform do not overlap. " if waveform else "its frames are none of a waveform. ")
                + f"Leave it out (data.{key}=null)"
                + (", or set data.frame_width." if waveform else ", or set data.frontend=waveform.")
            )
    if frames:
        idle = [key for key, nothing in OF_SOUND.items() if getattr(settings, key) != nothing]
        if idle:
            raise UserError(
                f"data.{idle[0]}={getattr(settings, idle[0])} says nothing: corpus '{name}' holds frames, no sound, "
                f"and reads none of {', '.join(f'data.{key}' for key in OF_SOUND)}. Leave it out"
                + (f" (data.{idle[0]}=null)." if idle[0] == "trim_db" and name in BOTH else ".")
            )
