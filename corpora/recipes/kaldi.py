"""Data folders of Kaldi (Povey et al., 2011), as its recipes leave them.

    ROOT/train/wav.scp, utt2spk, ...    train
    ROOT/dev/...                        valid (also ``valid`` or ``cv``)
    ROOT/test/...                       test (also ``eval``)

or one such folder as the root, whose speakers are then split by the seed. Of a folder are read: ``wav.scp``
(recordings), ``segments`` where there is one (utterances as parts of recordings, in seconds), ``utt2spk``,
``spk2gender`` (label ``sex``) and ``text`` (label ``text``). A path in ``wav.scp`` that is not absolute starts at the
folder, at one above it (recipes run there), or where the program runs: the first of these that holds the file.

A command in ``wav.scp`` (a line that ends in ``|``) is never run. If all it does is decode a file (``sph2pipe``,
``flac``, ``cat``), that file is read here.

With ``data.frontend=frames`` features computed by Kaldi are read in place of sound: ``feats.scp`` in place of
``wav.scp`` and ``segments``, matrices of its archives, also compressed (`corpora.recipes.kaldi_features`). ``cmvn.scp``
is not applied; the model's input transform standardises (``model.input=standard``). Also set ``data.trim_db=null``,
``model.bins`` to the columns of the features and ``model.likelihood=gaussian``.
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
from corpora.recipes.layouts.dealing import seeded_split
from corpora.settings import DataSettings
from corpora.types import SPLITS, AudioFault, Corpus, Frames, Sound, Utterance
from dvae_pyro.errors import UserError

__all__ = ["DECODERS", "FOLDERS", "open_kaldi", "read_table"]

#: Names of the folder of each split, the first one there is taken.
FOLDERS = {"train": ("train",), "valid": ("valid", "dev", "cv"), "test": ("test", "eval")}
#: Commands that decode one file, the last word of the line, and do nothing else.
DECODERS = ("sph2pipe", "flac", "cat")
#: Seconds that a segment may run past the end of its recording, as Kaldi's extract-segments takes it.
OVERSHOOT = 0.5


#: Gives for a data folder what reads each utterance, by name.
Finder = Callable[[Path], Mapping[str, functools.partial[Sound] | functools.partial[Frames]]]


class _Recording(NamedTuple):
    """Where a recording lies, and which of its channels is meant; 0 for all."""

    path: str
    channel: int


def open_kaldi(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed splits a root that is one data folder.

    Raises:
        UserError: There is no such folder, a file in it is not of Kaldi's form or does not go with the others, a
            recording is the output of a command, a split is empty.
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
                "Give the folder that holds them (data/ of a recipe) as --root."
            )
        corpus.splits[split], corpus.notes[split] = _utterances(folder, find, f"{folder.name}/")
    return corpus


def read_table(path: Path) -> dict[str, str]:
    """A file of lines of a key and a value; where nothing follows the key the value is empty.

    Raises:
        UserError: The file is missing, not text, empty, or a key comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path} cannot be read ({reason}): expected lines of a name and what belongs to it.") from None
    table: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, *rest = line.split(maxsplit=1)
        if key in table:
            raise UserError(f"{path}, line {number}: {key} is there twice. utils/fix_data_dir.sh of Kaldi mends that.")
        table[key] = rest[0].strip() if rest else ""
    if not table:
        raise UserError(
            f"{path} holds no line: the folder was not written to its end. Run the recipe's preparation again."
        )
    return table


def _split_one(corpus: Corpus, folder: Path, find: Finder, seed: int, needed: Sequence[str]) -> Corpus:
    """One data folder, split by the seed, by speakers where there are three."""
    found, notes = _utterances(folder, find, "")
    speakers = {utterance.speaker for utterance in found}
    apart = len(speakers) >= 3
    if not apart and len(found) < 3:
        raise UserError(f"{folder} holds {len(found)} utterance(s), too few to split into train, valid and test.")
    parts = seeded_split(sorted(speakers) if apart else [utterance.file for utterance in found], seed)
    for split in needed:
        chosen = set(parts[split])
        taken = [utterance for utterance in found if (utterance.speaker if apart else utterance.file) in chosen]
        corpus.splits[split] = taken
        what = "no speaker in two splits" if apart else f"{len(speakers)} speaker(s), too few to keep them apart"
        note = f"{folder} is one data folder, so split by seed {seed}: {len(taken)} of {len(found)} utterances, {what}"
        corpus.notes[split] = [note, *notes]
    return corpus


def _utterances(folder: Path, find: Finder, prefix: str) -> tuple[list[Utterance], list[str]]:
    """The utterances of one data folder, and what to say about them."""
    loads = find(folder)
    speakers, notes = _speakers(folder, loads)
    sexes, texts = _optional(folder, "spk2gender"), _optional(folder, "text")
    found = []
    for name in sorted(loads):
        labels: dict[str, object] = {}
        if speakers[name] in sexes:
            labels["sex"] = sexes[speakers[name]]
        if name in texts:
            labels["text"] = texts[name]
        of_file = loads[name].args[1:]  # behind what reads it: the file, and what of it
        source = (_resolved(folder, of_file[0].path), *of_file)
        found.append(Utterance(prefix + name, speakers[name], loads[name], labels, source))
    return found, notes


def _features(folder: Path) -> Mapping[str, functools.partial[Frames]]:
    """What reads the features of each utterance."""
    places = {
        name: find_place(value, f"{folder / 'feats.scp'}, {name}")
        for name, value in read_table(folder / "feats.scp").items()
    }
    return {name: functools.partial(_read_frames, folder, place) for name, place in places.items()}


def _sounds(folder: Path) -> Mapping[str, functools.partial[Sound]]:
    """What reads the sound of each utterance."""
    if (folder / "feats.scp").is_file() and not (folder / "wav.scp").is_file():
        raise UserError(
            f"{folder} has feats.scp and no wav.scp: it holds features, no sound.\n"
            "Read them with data.frontend=frames data.trim_db=null model.bins=COLUMNS model.likelihood=gaussian."
        )
    recordings = {key: _recording(value, folder, key) for key, value in read_table(folder / "wav.scp").items()}
    # The parts of one recording follow each other: it is read once for them.
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
    """Who speaks each utterance."""
    table = _optional(folder, "utt2spk")
    if not table:
        return {name: name for name in names}, ["no utt2spk: each utterance is taken as its own speaker"]
    missing = [name for name in names if not table.get(name)]
    if missing:
        raise UserError(
            f"{folder / 'utt2spk'} does not say who speaks {len(missing)} of {len(names)} utterances, such as "
            f"{missing[0]}.\n"
            "utils/fix_data_dir.sh of Kaldi makes the files of a folder agree."
        )
    return {name: table[name] for name in names}, []


def _recording(value: str, folder: Path, key: str) -> _Recording:
    """What a line of ``wav.scp`` stands for."""
    where = f"{folder / 'wav.scp'}, {key}"
    if not value.endswith("|"):
        if re.search(r"\.ark:\d+$", value) or not value or value == "-":
            raise UserError(
                f"{where}: got {value!r}, expected the path of a sound file.\n"
                "Archives are written out as files by Kaldi's wav-copy."
            )
        return _Recording(value, 0)
    words = shlex.split(value[:-1])
    if len(words) < 2 or Path(words[0]).name not in DECODERS or "|" in words:
        raise UserError(
            f"{where} is the output of a command, {value!r}, and commands in data are not run here.\n"
            "Write the sounds to files and name these: wav-copy scp:wav.scp scp,p:files.scp of Kaldi does, with\n"
            "files.scp of lines NAME PATH.wav."
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
    """The file that a path stands for, wherever it starts; the first that it could be if there is none."""
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [place / path for place in (folder, *folder.absolute().parents)] + [path]
    return next((place for place in places if place.is_file()), places[0])


def _span(folder: Path, name: str, value: str, recordings: Mapping[str, _Recording]) -> tuple[_Recording, float, float]:
    """What a line of ``segments`` stands for: a recording, from and to which second; to the end if negative."""
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
            "utils/fix_data_dir.sh of Kaldi makes the files of a folder agree."
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


#: What lists the utterances of a data folder, and what reads it, by what the utterances hold.
FINDERS: dict[str, tuple[str, Finder]] = {"sound": ("wav.scp", _sounds), "frames": ("feats.scp", _features)}
