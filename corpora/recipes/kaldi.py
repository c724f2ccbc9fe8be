"""Data folders of Kaldi (Povey et al., 2011), as written by its recipes.

    ROOT/train/wav.scp, utt2spk, ...    train
    ROOT/dev/...                        valid (also ``valid`` or ``cv``)
    ROOT/test/...                       test (also ``eval``)

or one such folder as the root, whose speakers are then split by the seed. The files read are: ``wav.scp``
(recordings), ``segments`` if present (utterances as parts of recordings, in seconds), ``utt2spk``, ``spk2gender``
(label ``sex``) and ``text`` (label ``text``). A relative path in ``wav.scp`` starts at the folder, at one of its
parents (recipes run there), or at the working directory: the first of these where the file exists.

A command in ``wav.scp`` (a line that ends in ``|``) is never run. If it only decodes a file (``sph2pipe``, ``flac``,
``cat``), that file is read directly.

With ``data.frontend=frames`` features computed by Kaldi are read instead of sound: ``feats.scp`` replaces ``wav.scp``
and ``segments``; matrices in archives may be compressed (`corpora.recipes.kaldi_features`). ``cmvn.scp`` is not
applied; use the model's input transform for standardisation (``model.input=standard``). Also set
``data.trim_db=null``, ``model.bins`` to the columns of the features and ``model.likelihood=gaussian``.
"""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from corpora.audio.io import read_audio
from corpora.recipes.folder import corpus_root
from corpora.recipes.kaldi_features import Place, find_place, read_matrix
from corpora.recipes.layouts.assignment import seeded_split
from corpora.settings import DataSettings
from corpora.types import SPLITS, AudioFault, Corpus, Frames, Sound, Utterance
from dvae_pyro.errors import UserError

__all__ = ["DECODERS", "FOLDERS", "open_kaldi", "read_table"]

#: Possible names of the folder of each split; the first existing one is used.
FOLDERS = {"train": ("train",), "valid": ("valid", "dev", "cv"), "test": ("test", "eval")}
#: Commands that only decode one file, the last word of the line.
DECODERS = ("sph2pipe", "flac", "cat")
#: Seconds that a segment may exceed the end of its recording, as in Kaldi's extract-segments.
OVERSHOOT = 0.5


#: From a data folder to functions that read each utterance, by name.
Finder = Callable[[Path], Mapping[str, functools.partial[Sound] | functools.partial[Frames]]]


class _Recording(NamedTuple):
    """The path of a recording, and the selected channel, counted from 1; 0 for all."""

    path: str
    channel: int


def open_kaldi(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed splits a root that is one data folder.

    Raises:
        UserError: There is no such folder, a file in it has another format than Kaldi's or contradicts the others, a
            recording is the output of a command, or a split is empty.
    """
    root = corpus_root(settings)
    corpus = Corpus("kaldi", str(root), {})
    listing, find = FINDERS["frames" if settings.frontend == "frames" else "sound"]
    if (root / listing).is_file():
        return _split_one(corpus, root, find, seed, needed)
    for split in needed:
        folder = next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)
        if folder is None:
            raise UserError(
                f"no folder {' or '.join(f'{name}/' for name in FOLDERS[split])} in {root}, and no {listing} either: "
                "expected Kaldi's data folders there.\n"
                "Give the folder that contains them (data/ of a recipe) as --root."
            )
        corpus.splits[split], corpus.notes[split] = _utterances(folder, find, f"{folder.name}/")
    return corpus


def read_table(path: Path) -> dict[str, str]:
    """Read a file with a key and a value on each line; the value may be empty.

    Raises:
        UserError: The file is missing, not text, empty, or has a key twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path} cannot be read ({reason}): expected lines of a name and its value.") from None
    table: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, *rest = line.split(maxsplit=1)
        if key in table:
            raise UserError(f"{path}, line {number}: {key} occurs twice. Kaldi's utils/fix_data_dir.sh repairs this.")
        table[key] = rest[0].strip() if rest else ""
    if not table:
        raise UserError(
            f"{path} is empty: the preparation of the folder was interrupted. Run the recipe's preparation again."
        )
    return table


def _split_one(corpus: Corpus, folder: Path, find: Finder, seed: int, needed: Sequence[str]) -> Corpus:
    """One data folder, split by the seed: by speakers if there are at least three."""
    utterances, notes = _utterances(folder, find, "")
    speakers = {utterance.speaker for utterance in utterances}
    disjoint = len(speakers) >= 3
    if not disjoint and len(utterances) < 3:
        raise UserError(f"{folder} has {len(utterances)} utterance(s), too few to split into train, valid and test.")
    parts = seeded_split(sorted(speakers) if disjoint else [utterance.file for utterance in utterances], seed)
    for split in needed:
        names = set(parts[split])
        members = [u for u in utterances if (u.speaker if disjoint else u.file) in names]
        corpus.splits[split] = members
        what = "speaker-disjoint" if disjoint else f"{len(speakers)} speaker(s), too few for speaker-disjoint splits"
        count = f"{len(members)} of {len(utterances)} utterances"
        corpus.notes[split] = [f"{folder} is one data folder, so split by seed {seed}: {count}, {what}", *notes]
    return corpus


def _utterances(folder: Path, find: Finder, prefix: str) -> tuple[list[Utterance], list[str]]:
    """The utterances of one data folder, and notes about them."""
    loads = find(folder)
    speakers, notes = _speakers(folder, loads)
    sexes, texts = _optional(folder, "spk2gender"), _optional(folder, "text")
    utterances = []
    for name in sorted(loads):
        labels: dict[str, object] = {}
        if speakers[name] in sexes:
            labels["sex"] = sexes[speakers[name]]
        if name in texts:
            labels["text"] = texts[name]
        parameters = loads[name].args[1:]  # after the reader: the file, and the part of it
        source = (_resolved(folder, parameters[0].path), *parameters)
        utterances.append(Utterance(prefix + name, speakers[name], loads[name], labels, source))
    return utterances, notes


def _features(folder: Path) -> Mapping[str, functools.partial[Frames]]:
    """Functions that read the features of each utterance."""
    places = {
        name: find_place(value, f"{folder / 'feats.scp'}, {name}")
        for name, value in read_table(folder / "feats.scp").items()
    }
    return {name: functools.partial(_read_frames, folder, place) for name, place in places.items()}


def _sounds(folder: Path) -> Mapping[str, functools.partial[Sound]]:
    """Functions that read the sound of each utterance."""
    if (folder / "feats.scp").is_file() and not (folder / "wav.scp").is_file():
        raise UserError(
            f"{folder} has feats.scp and no wav.scp: it holds features, no sound.\n"
            "Read them with data.frontend=frames data.trim_db=null model.bins=COLUMNS model.likelihood=gaussian."
        )
    recordings = {key: _recording(value, folder, key) for key, value in read_table(folder / "wav.scp").items()}
    # Segments of one recording are consecutive: the recording is read once for all of them.
    read = functools.lru_cache(maxsize=1)(functools.partial(_read, folder))
    if not (folder / "segments").is_file():
        return {name: functools.partial(_read, folder, recording) for name, recording in recordings.items()}
    return {
        name: functools.partial(_segment, read, *_span(folder, name, value, recordings))
        for name, value in read_table(folder / "segments").items()
    }


def _optional(folder: Path, name: str) -> dict[str, str]:
    return read_table(folder / name) if (folder / name).is_file() else {}


def _speakers(folder: Path, names: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """The speaker of each utterance, and notes."""
    table = _optional(folder, "utt2spk")
    if not table:
        return {name: name for name in names}, ["no utt2spk: each utterance counts as its own speaker"]
    missing = [name for name in names if not table.get(name)]
    if missing:
        raise UserError(
            f"{folder / 'utt2spk'} has no speaker for {len(missing)} of {len(names)} utterances, such as "
            f"{missing[0]}.\n"
            "Kaldi's utils/fix_data_dir.sh makes the files of a folder consistent."
        )
    return {name: table[name] for name in names}, []


def _recording(value: str, folder: Path, key: str) -> _Recording:
    """The recording of a line of ``wav.scp``."""
    where = f"{folder / 'wav.scp'}, {key}"
    if not value.endswith("|"):
        if re.search(r"\.ark:\d+$", value) or not value or value == "-":
            raise UserError(
                f"{where}: got {value!r}, expected the path of a sound file.\n"
                "Kaldi's wav-copy converts archives to files."
            )
        return _Recording(value, 0)
    words = shlex.split(value[:-1])
    if len(words) < 2 or Path(words[0]).name not in DECODERS or "|" in words:
        raise UserError(
            f"{where} is the output of a command, {value!r}, and commands in data are never run.\n"
            "Write the sounds to files and list these: Kaldi's wav-copy scp:wav.scp scp,p:files.scp does this, with\n"
            "lines NAME PATH.wav in files.scp."
        )
    channel = words[words.index("-c") + 1] if Path(words[0]).name == "sph2pipe" and "-c" in words else "0"
    if channel not in ("0", "1", "2"):
        raise UserError(f"{where}: got channel -c {channel} of sph2pipe, expected 1 or 2.")
    return _Recording(words[-1], int(channel))


def _read(folder: Path, recording: _Recording) -> Sound:
    """Read a recording."""
    path = _resolved(folder, recording.path)
    sound = read_audio(path)
    if recording.channel == 0:
        return sound
    if recording.channel > sound.samples.shape[1]:
        raise AudioFault(f"has no channel {recording.channel}", str(path))
    return Sound(sound.samples[:, recording.channel - 1 : recording.channel], sound.rate)


def _read_frames(folder: Path, place: Place) -> Frames:
    return Frames(read_matrix(_resolved(folder, place.path), place))


def _resolved(folder: Path, name: str) -> Path:
    """The file of a relative or absolute path; the first candidate if none exists."""
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [place / path for place in (folder, *folder.absolute().parents)] + [path]
    return next((place for place in places if place.is_file()), places[0])


def _span(folder: Path, name: str, value: str, recordings: Mapping[str, _Recording]) -> tuple[_Recording, float, float]:
    """Recording, start and end of a line of ``segments``, in seconds; a negative end is that of the recording."""
    words = value.split()
    try:
        key, start, end = words[0], float(words[1]), float(words[2])
        bad = not (math.isfinite(start) and math.isfinite(end)) or start < 0 or 0 <= end <= start
    except (IndexError, ValueError):
        bad = True
    if bad:
        raise UserError(
            f"{folder / 'segments'}, {name}: got {value!r}, expected recording, first and last second such as "
            "'rec1 0.5 3.2'."
        )
    if key not in recordings:
        raise UserError(
            f"{folder / 'segments'}, {name}: recording {key} is not in wav.scp.\n"
            "Kaldi's utils/fix_data_dir.sh makes the files of a folder consistent."
        )
    return recordings[key], start, end


def _segment(read: Callable[[_Recording], Sound], recording: _Recording, start: float, end: float) -> Sound:
    """A part of a recording, in seconds."""
    sound = read(recording)
    length = len(sound.samples) / sound.rate
    if start >= length or end > length + OVERSHOOT:
        raise AudioFault(f"is the part from {start:g} to {end:g} s of a recording of {length:.2f} s", recording.path)
    last = len(sound.samples) if end < 0 else round(end * sound.rate)
    return Sound(sound.samples[round(start * sound.rate) : last], sound.rate)


#: The file that lists the utterances of a data folder, and the function that reads it, for sound and for frames.
FINDERS: dict[str, tuple[str, Finder]] = {"sound": ("wav.scp", _sounds), "frames": ("feats.scp", _features)}
