"""The registry of corpus loaders, and checks of the ``data`` settings.

A new corpus is a module with a function ``open_NAME(settings, seed, needed) -> Corpus`` and one line in `CORPORA`. An
utterance's file is not read before its `Utterance.load` is called.

A corpus may hold frames instead of sound (piano rolls, pen strokes, precomputed features): its `Utterance.load` returns
`Frames`, and its line in `CORPUS_DEFAULTS` has the front end ``frames``, which returns them unchanged.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from corpora.audio.conditions import check_conditions, in_conditions
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


#: Loader of each corpus as ``"module:function"``, imported on use.
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

#: Defaults for corpora of pen strokes; data are standardised by training statistics (`model.normalise`).
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

#: Default settings of a corpus by dotted key, which override those of the model: its frames, and a suitable likelihood.
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

#: Corpora with subsets, which ``data.subset`` selects, and examples of their names.
SETS: dict[str, Sequence[str]] = {
    "timit": ("with_sa",),
    "aurora4": ("multi", "clean", "dev"),
    "fsdd": ("strings",),
    "polyphonic": ("JSB_Chorales", "Nottingham", "Piano_midi", "MuseData"),
}

#: Corpora that hold sound, frames or both: frames are read with ``data.frontend=frames``.
BOTH = ("kaldi",)

#: Corpora of arbitrary folders of audio, read by ``data.layout`` and ``data.speaker_level``.
OF_FOLDERS = ("folder", "blizzard2013")

#: Settings that have an effect on sound only, and their values without effect.
OF_SOUND = {"rate": 16000, "channel": None, "window": None, "hop": None, "trim_db": None}


def open_corpus(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the utterances of the corpus that the settings name.

    Args:
        settings: The ``data`` settings.
        seed: Seed of random decisions: the split of a folder without one, the synthetic speech.
        needed: Splits that are required; others are not searched for.

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
    return in_conditions(corpus, settings.conditions, seed)


def _in_channel(utterance: Utterance, channel: int) -> Utterance:
    load = functools.partial(one_channel, utterance.load, channel)
    return replace(utterance, load=load, source=(*utterance.source, channel) if utterance.source else ())


def holds_frames(settings: DataSettings) -> bool:
    """Whether frames are read from a corpus instead of sound; for one that holds both, whether frames are selected."""
    if settings.corpus in BOTH:
        return settings.frontend == "frames"
    return CORPUS_DEFAULTS.get(settings.corpus, {}).get("data.frontend") == "frames"


def check_data(settings: DataSettings) -> None:
    """Refuse settings that the corpus does not use, or that do not fit its contents.

    Raises:
        UserError: A subset of a corpus without subsets, settings of sound for a corpus of frames, or the reverse.
    """
    name = settings.corpus
    if settings.subset is not None and name not in SETS:
        known = ", ".join(f"{corpus} (such as {sets[0]})" for corpus, sets in SETS.items())
        raise UserError(
            f"data.subset={settings.subset}: corpus '{name}' has no subsets; corpora with subsets: {known}.\n"
            "Omit data.subset (data.subset=null), or give another --corpus."
        )
    if settings.dequantise is not None and "data.dequantise" not in CORPUS_DEFAULTS.get(name, {}):
        known = ", ".join(corpus for corpus, implied in CORPUS_DEFAULTS.items() if "data.dequantise" in implied)
        raise UserError(
            f"data.dequantise={settings.dequantise} has no effect: data of corpus '{name}' are not quantised; corpora "
            f"with quantised data: {known}.\n"
            "Omit data.dequantise (data.dequantise=null), or give another --corpus."
        )
    for key in ("layout", "speaker_level"):
        if getattr(settings, key) is not None and name not in OF_FOLDERS:
            raise UserError(
                f"data.{key}={getattr(settings, key)} has no effect: corpus '{name}' is read by its own loader.\n"
                f"Omit it (data.{key}=null), or give --corpus folder."
            )
    cut_split = next((split for split in SPLITS if getattr(settings.cuts, split) is not None), None)
    if cut_split is not None and name != "lhotse":
        raise UserError(
            f"data.cuts.{cut_split} has no effect: corpus '{name}' is not read from cuts. Give --corpus lhotse."
        )
    frames = holds_frames(settings)
    if settings.conditions is not None:
        check_conditions(settings.conditions)
        if frames:
            raise UserError(
                f"data.conditions={settings.conditions}: corpus '{name}' holds frames, but conditions are simulated "
                "from sound. Omit it (data.conditions=null)."
            )
    if frames != (settings.frontend == "frames"):
        holds, remedy = ("frames, no sound", "data.frontend=frames") if frames else ("sound", "data.frontend=stft")
        raise UserError(
            f"data.frontend={settings.frontend}: corpus '{name}' holds {holds}.\n"
            f"Set {remedy} (and data.trim_db and model.bins accordingly), or give another --corpus."
        )
    waveform = settings.frontend == "waveform"
    for key in ("window", "hop") if waveform else ("frame_width",):
        if getattr(settings, key) is not None:
            raise UserError(
                f"data.{key}={getattr(settings, key)} has no effect with data.frontend={settings.frontend}: "
                + ("frames of a waveform do not overlap. " if waveform else "its frames are not waveform frames. ")
                + f"Omit it (data.{key}=null)"
                + (", or set data.frame_width." if waveform else ", or set data.frontend=waveform.")
            )
    if frames:
        unused = [key for key, default in OF_SOUND.items() if getattr(settings, key) != default]
        if unused:
            raise UserError(
                f"data.{unused[0]}={getattr(settings, unused[0])} has no effect: corpus '{name}' holds frames, no "
                f"sound, and uses none of {', '.join(f'data.{key}' for key in OF_SOUND)}. Omit it"
                + (f" (data.{unused[0]}=null)." if unused[0] == "trim_db" and name in BOTH else ".")
            )
