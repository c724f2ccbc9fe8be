"""Lhotse cuts as utterances: sound, speaker, text and acoustic condition."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpora.audio.io import check_file
from corpora.types import AudioFault, Sound, Utterance
from dvae_pyro.errors import UserError, first_line

__all__ = ["is_mixed", "load", "speaker_of", "split_of_cut", "utterance_of"]


def utterance_of(cut: Any, *, labelled: bool = False) -> Utterance:
    """An utterance that loads the sound of a cut, with its duration, gaps, overlaps and mixed noise.

    Args:
        cut: MonoCut, MultiCut or MixedCut.
        labelled: Whether to label its condition, ``A`` clean or ``B`` noisy (`corpora.audio.conditions`).

    Raises:
        UserError: Its sound is the output of a command; commands are never run.
    """
    paths, only_files = [], True
    for source in _sources(cut):
        named = isinstance(source.source, str | Path)  # in memory it is the bytes of the sound
        if source.type == "command" or (named and str(source.source).startswith("pipe:")):
            raise UserError(
                f"cut {cut.id}: its sound is the output of a command, {str(source.source)[:80]!r}, and commands in "
                "data are never run.\nWrite the sounds to files first, with save_audios or to_shar of Lhotse's CutSet."
            )
        paths.append(Path(source.source)) if source.type == "file" else None
        only_files = only_files and source.type == "file"
    supervisions = sorted(cut.supervisions, key=lambda supervision: float(supervision.start))
    text = " ".join(supervision.text for supervision in supervisions if supervision.text)
    sexes = {str(s.gender).lower()[:1] for s in supervisions if s.gender}
    labels: dict[str, object] = {"text": text} if text else {}
    if len(sexes) == 1 and sexes <= {"f", "m"}:
        labels["sex"] = sexes.pop()
    if labelled:
        noisy = is_mixed(cut)
        labels |= {"condition": "B" if noisy else "A", "domain": "noisy" if noisy else "clean"}
    # The sound depends on its files, and on the cut, which has the part of them and the transforms.
    source = (*paths, json.dumps(cut.to_dict(), sort_keys=True, default=str)) if only_files and paths else ()
    return Utterance(str(cut.id), speaker_of(cut), functools.partial(load, cut), labels, source)


def load(cut: Any) -> Sound:
    """The sound of a cut.

    Raises:
        AudioFault: A file is missing, truncated or not audio, or Lhotse fails to read it with any error.
    """
    for source in _sources(cut):
        if source.type == "file":
            check_file(Path(source.source))
    try:
        samples = cut.load_audio()
    except Exception as error:  # the library raises errors of many types for damaged files
        raise AudioFault(f"cannot be read by Lhotse ({first_line(error)})") from None
    if samples is None or samples.size == 0:
        raise AudioFault("holds no samples")
    return Sound(np.asarray(samples, dtype=np.float64).T, int(cut.sampling_rate))


def speaker_of(cut: Any) -> str:
    """The speaker of a cut: several names are joined by ``+``; without a name, the recording's id."""
    names = sorted({str(s.speaker) for s in cut.supervisions if s.speaker})
    if names:
        return "+".join(names)
    return str(next((part.recording_id for part in _parts(cut)), cut.id))


def split_of_cut(cut: Any) -> str | None:
    """The custom field ``split`` of a cut, its parts or its supervisions; None without one."""
    for part in (cut, *_parts(cut), *cut.supervisions):
        custom = getattr(part, "custom", None) or {}
        if "split" in custom:
            return str(custom["split"])
    return None


def is_mixed(cut: Any) -> bool:
    """Whether a cut is mixed with another at a signal-to-noise ratio, such as by ``CutSet.mix``."""
    return any(getattr(track, "snr", None) is not None for track in getattr(cut, "tracks", ()))


def _parts(cut: Any) -> Iterator[Any]:
    """The cuts with a recording that a cut consists of."""
    for part in [track.cut for track in cut.tracks] if hasattr(cut, "tracks") else [cut]:
        if getattr(part, "recording", None) is not None:
            yield part


def _sources(cut: Any) -> Iterator[Any]:
    for part in _parts(cut):
        yield from part.recording.sources
