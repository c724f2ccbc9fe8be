"""The settings under ``data``: which corpus is read, and how its recordings become frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dvae_pyro.fields import bounded

__all__ = ["CutsSettings", "DataSettings"]


@dataclass
class CutsSettings:
    """Lhotse's manifests of cuts, or folders of Shar shards, by split; for ``data.corpus=lhotse``."""

    train: str | None = None
    valid: str | None = None
    test: str | None = None


@dataclass
class DataSettings:
    """The corpus and its frames; `corpora.registry.CORPUS_DEFAULTS` says what a corpus implies.

    Attributes:
        corpus: Name of a loader in `corpora.registry.CORPORA`.
        root: Folder the loader reads; None for a built-in corpus.
        layout: Name of a layout of `corpora.recipes.layouts.table`, ``"splits"`` or ``"none"``; None recognises it.
        speaker_level: Which folder from the root, counted from 1, says who speaks where no known layout does.
        cuts: Manifests of the splits, for the corpus ``lhotse``.
        subset: Which part of a corpus that comes in several; not every corpus reads it.
        conditions: Letters of the conditions of `corpora.audio.conditions` that all utterances are heard in; None as
            recorded.
        rate: Sampling rate of the features, in Hz; other rates are resampled to it.
        channel: Which channel of recordings with several is taken, counted from 0; None mixes them.
        frontend: Name of a front end in `corpora.frontends.registry.FRONT_ENDS`.
        window: Samples per analysis window; None follows the number of bins.
        hop: Samples from one frame to the next; None is 16 ms, or what the front end says.
        frame_width: Samples per frame of a waveform; None where frames are none of it.
        trim_db: Silence this far below the loudest frame is cut at both ends; None keeps all.
        sequence_frames: Frames per training sequence; None takes whole utterances.
        short_utterances: What becomes of an utterance shorter than that: ``"drop"`` leaves it out, ``"keep"`` keeps it.
        segment_starts: Where training sequences start: ``"fixed"``, one after another, or ``"random"``, as many of each
            utterance, drawn anew in each epoch.
        dequantise: Noise of the width of the grid that data lie on: ``"all"`` of every position, ``"train"`` of the
            moves of training alone, None none; see `corpora.recipes.strokes.moving`.
        on_error: ``"error"`` stops at a broken file, ``"skip"`` leaves it out and says so.
        cache: Folder that features are kept in; None computes them each time.
        stream: Whether the training set is read while it is trained on (`corpora.streaming`); None does so where it is
            in Shar shards or larger than `memory`.
        memory: Gigabytes of features that are held in memory.
        shuffle_shards: Shards whose sequences are shuffled together; about two times as many are in memory.
        workers: Threads of each process that read and decode a stream.
    """

    corpus: str = "synthetic"
    root: str | None = None
    layout: str | None = None
    speaker_level: int | None = bounded(None, at_least=1)
    cuts: CutsSettings = field(default_factory=CutsSettings)
    subset: str | None = None
    conditions: str | None = None
    seed: int = 0
    rate: int = bounded(16000, at_least=1)
    channel: int | None = bounded(None, at_least=0)
    frontend: str = "stft"
    window: int | None = bounded(None, at_least=2)
    hop: int | None = bounded(None, at_least=1)
    frame_width: int | None = bounded(None, at_least=1)
    trim_db: float | None = 30.0
    sequence_frames: int | None = bounded(150, at_least=1)
    short_utterances: Literal["drop", "keep"] = "drop"
    segment_starts: Literal["fixed", "random"] = "fixed"
    dequantise: Literal["all", "train"] | None = None
    on_error: Literal["error", "skip"] = "error"
    cache: str | None = None
    stream: bool | None = None
    memory: float = bounded(16.0, at_least=0)
    shuffle_shards: int = bounded(4, at_least=1)
    workers: int = bounded(1, at_least=1)
