"""The settings under ``data``: the corpus, and how its recordings are converted to frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from dvae_pyro.fields import bounded, one_of

__all__ = ["CutsSettings", "DataSettings"]


@dataclass
class CutsSettings:
    """Lhotse's manifests of cuts, or folders of Shar shards, by split; for ``data.corpus=lhotse``.

    Attributes:
        train: Cuts of the training split.
        valid: Cuts of the validation split.
        test: Cuts of the test split.
    """

    train: str | None = None
    valid: str | None = None
    test: str | None = None


@dataclass
class DataSettings:
    """The corpus and its frames; `corpora.registry.CORPUS_DEFAULTS` has the defaults of each corpus.

    Attributes:
        corpus: Name of a loader in `corpora.registry.CORPORA`.
        root: Folder the loader reads; None for a built-in corpus.
        layout: Name of a layout of `corpora.recipes.layouts.table`, ``"splits"`` or ``"none"``; None detects it.
        speaker_level: Level of the folders that are named by speaker, 1 below the root, for unknown layouts.
        cuts: Manifests of the splits, for the corpus ``lhotse``.
        subset: Part of a corpus that has several; not every corpus uses it.
        conditions: Letters of the acoustic conditions (`corpora.audio.conditions`) that every utterance is simulated
            in; None: as recorded.
        seed: Seed of whatever a corpus draws: its splits, its conditions, the synthetic speakers and sentences.
        rate: Sampling rate of the features, in Hz; other rates are resampled to it.
        channel: Channel of multi-channel recordings that is used, counted from 0; None mixes them.
        frontend: Name of a front end in `corpora.frontends.registry.FRONT_ENDS`.
        window: Samples per analysis window; None follows the number of bins.
        hop: Samples from one frame to the next; None is 16 ms, or the front end's default.
        frame_width: Samples per frame of a waveform; None for other front ends.
        trim_db: Silence this far below the loudest frame is cut at both ends; None keeps all.
        sequence_frames: Frames per training sequence; None takes whole utterances.
        short_utterances: Whether to ``"drop"`` or ``"keep"`` utterances shorter than that.
        segment_starts: Starts of training sequences: ``"fixed"``, consecutive, or ``"random"``, the same number per
            utterance, drawn anew in each epoch.
        dequantise: Uniform noise of one quantisation step: ``"all"`` adds it to every position, ``"train"`` to the
            moves of training data only, None adds none; see `corpora.recipes.strokes.moving`.
        on_error: ``"error"`` stops at a broken file, ``"skip"`` omits it and reports it.
        cache: Folder for computed features; None computes them each time.
        stream: Whether the training set is read during training (`corpora.streaming`); None: if it is in Shar shards or
            larger than `memory`.
        memory: Gigabytes of features that are held in memory.
        shuffle_shards: Number of shards whose sequences are shuffled together; these, and one more for each worker, are
            in memory.
        workers: Threads per process that read and decode a stream.
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
    short_utterances: str = one_of("drop", "keep")
    segment_starts: str = one_of("fixed", "random")
    dequantise: str | None = one_of(None, "all", "train")
    on_error: str = one_of("error", "skip")
    cache: str | None = None
    stream: bool | None = None
    memory: float = bounded(16.0, at_least=0)
    shuffle_shards: int = bounded(4, at_least=1)
    workers: int = bounded(1, at_least=1)
