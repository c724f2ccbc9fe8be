"""What the corpora read of a run's settings: the ``data`` node, typed by its attributes alone."""

from __future__ import annotations

from typing import Protocol

__all__ = ["DataSettings"]


class DataSettings(Protocol):
    """The settings under ``data``; any object with these attributes will do.

    Attributes:
        corpus: Name of a loader in `corpora.corpus.CORPORA`.
        root: Folder the loader reads; None for a built-in corpus.
        layout: Name of a layout of `corpora.recipes.layouts`, ``"splits"`` or ``"none"``; None recognises it.
        speaker_level: Which folder from the root, counted from 1, says who speaks where no known layout does.
        set: Which part of a corpus that comes in several; not every corpus reads it.
        domains: Letters of the conditions of `corpora.domains` that all utterances are heard in; None as recorded.
        rate: Sampling rate of the features, in Hz; other rates are resampled to it.
        channel: Which channel of recordings with several is taken, counted from 0; None mixes them.
        frontend: Name of a front end in `corpora.frontends.FRONT_ENDS`.
        window: Samples per analysis window; None follows the number of bins.
        hop: Samples from one frame to the next; None is 16 ms, or what the front end says.
        frame_width: Samples per frame of a waveform; None where frames are none of it.
        trim_db: Silence this far below the loudest frame is cut at both ends; None keeps all.
        sequence_frames: Frames per training sequence; None takes whole utterances.
        short: What becomes of an utterance shorter than that: ``"drop"`` leaves it out, ``"keep"`` keeps it as it is.
        noise: Noise of the width of the grid that data lie on: ``"all"`` of every position, ``"train"`` of the moves
            of training alone, None none; see `corpora.strokes.moving`.
        on_error: ``"error"`` stops at a broken file, ``"skip"`` leaves it out and says so.
        cache: Folder that features are kept in; None computes them each time.
    """

    @property
    def corpus(self) -> str: ...

    @property
    def root(self) -> str | None: ...

    @property
    def layout(self) -> str | None: ...

    @property
    def speaker_level(self) -> int | None: ...

    @property
    def set(self) -> str | None: ...

    @property
    def domains(self) -> str | None: ...

    @property
    def rate(self) -> int: ...

    @property
    def channel(self) -> int | None: ...

    @property
    def frontend(self) -> str: ...

    @property
    def window(self) -> int | None: ...

    @property
    def hop(self) -> int | None: ...

    @property
    def frame_width(self) -> int | None: ...

    @property
    def trim_db(self) -> float | None: ...

    @property
    def sequence_frames(self) -> int | None: ...

    @property
    def short(self) -> str: ...

    @property
    def noise(self) -> str | None: ...

    @property
    def on_error(self) -> str: ...

    @property
    def cache(self) -> str | None: ...
