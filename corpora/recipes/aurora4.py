"""Aurora-4 (ELRA): WSJ0 in noise, at 16 kHz.

    ROOT/lists/training_multicondition_16k.list   train, the default (``data.subset=multi``)
    ROOT/lists/training_clean_sennh_16k.list      train, ``data.subset=clean``
    ROOT/lists/devtest01_0330_16k.list ... 14     valid: 330 sentences in each of 14 conditions
    ROOT/lists/test01_0330_16k.list ... 14        test: 330 sentences in each of 14 conditions

A list has a file on each line, such as ``.../050/050c0201.wv1``: the file below the root whose path ends in it, in any
case, or a converted one (``050c0201.wav``, ``050c0201.wv1.wav``). Files are as on the discs (16-bit samples, high byte
first, without header), NIST SPHERE or wav. The speaker is the first three letters of a file's name.

``data.subset=dev`` trains on 90 % of the sentences of the development set and validates on the other 10 %, as in the
public code of Hsu, Zhang & Glass (2017) for Table 3 of the paper.

Labels of an utterance: ``microphone`` (1, the close one, or 2); except for the multi-condition list also ``noise``,
``condition`` (A to D) and ``domain`` (clean, noisy, channel, noisy+channel). They follow from the list; for valid and
test from its number: 01 is clean, 02 to 07 are car, babble, restaurant, street, airport and train, 08 to 14 the same
with the second microphone.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from corpora.audio.conditions import DOMAINS
from corpora.audio.io import read_audio
from corpora.recipes.folder import corpus_root, find_audio
from corpora.recipes.layouts.assignment import seeded_split
from corpora.settings import DataSettings
from corpora.types import SPLITS, AudioFault, Corpus, Sound, Utterance
from dvae_pyro.errors import UserError, nearest

__all__ = ["LISTS", "NOISES", "RATE", "condition_of", "open_aurora4", "read_raw"]

RATE = 16000
NOISES = ("clean", "car", "babble", "restaurant", "street", "airport", "train")
#: Lists of each part, by name.
LISTS = {
    "multi": ("training_multicondition_16k.list",),
    "clean": ("training_clean_sennh_16k.list",),
    "dev": tuple(f"devtest{number:02}_0330_16k.list" for number in range(1, 15)),
    "test": tuple(f"test{number:02}_0330_16k.list" for number in range(1, 15)),
}
TRAINING = ("multi", "clean", "dev")
#: Possible endings of the files of a list, including converted ones.
CONVERTED = (".wv1", ".wv2", ".raw", ".wav", ".flac")


def condition_of(number: int) -> dict[str, object]:
    """Labels of the condition with this number, 1 to 14.

    Example:
        >>> condition_of(10)
        {'microphone': 2, 'noise': 'babble', 'condition': 'D', 'domain': 'noisy+channel'}
    """
    microphone, noise = divmod(number - 1, len(NOISES))
    letter = "ABCD"[2 * microphone + (noise > 0)]
    return {"microphone": microphone + 1, "noise": NOISES[noise], "condition": letter, "domain": DOMAINS[letter]}


def open_aurora4(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; with ``data.subset=dev`` the seed draws the validation sentences.

    Raises:
        UserError: The subset is unknown, a list or a file of a list is missing, or a split is empty.
    """
    part = settings.subset or TRAINING[0]
    if part not in TRAINING:
        raise UserError(
            f"data.subset={part}: Aurora-4 trains on one of {', '.join(TRAINING)} (default {TRAINING[0]})."
            f"{nearest(part, TRAINING)}"
        )
    root = corpus_root(settings)
    present = _Present(root)
    corpus = Corpus("aurora4", str(root), {})
    for split in needed:
        lists = LISTS[{"train": part, "valid": "dev", "test": "test"}[split]]
        utterances = [utterance for name in lists for utterance in _listed(present, name)]
        note = f"{len(utterances)} utterances of {len(lists)} list(s) such as lists/{lists[0]}"
        if part == "dev" and split != "test":
            held_out = set(seeded_split([_sentence(utterance.file) for utterance in utterances], seed)["valid"])
            utterances = [u for u in utterances if (_sentence(u.file) in held_out) == (split == "valid")]
            which = "held-out" if split == "valid" else "other"
            note += f", of which the {len(utterances)} of the {which} sentences are used"
        corpus.splits[split] = sorted(utterances, key=lambda utterance: utterance.file)
        corpus.notes[split] = [note]
    return corpus


def read_raw(path: Path) -> Sound:
    """Read 16-bit samples, high byte first, without header, at 16 kHz; files with a header are read by `read_audio`.

    Raises:
        AudioFault: The file is missing, empty, or of an odd number of bytes.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head[:7] == b"NIST_1A" or head[:4] in (b"RIFF", b"RIFX", b"fLaC"):
                return read_audio(path)
            contents = head + file.read()
    except OSError as error:
        raise AudioFault(f"cannot be opened ({error.strerror})", str(path)) from None
    if not contents:
        raise AudioFault("is empty (0 bytes)", str(path))
    if len(contents) % 2:
        raise AudioFault(f"is cut short: {len(contents)} bytes, expected a multiple of 2 (16-bit samples)", str(path))
    return Sound(np.frombuffer(contents, ">i2").astype(np.float64)[:, None] / 32768, RATE)


class _Present:
    """The files below a root, looked up by the end of their path.

    Args:
        root: The root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name: Mapping[str, list[str]] = defaultdict(list)
        for file in find_audio(root, root, CONVERTED):
            self.by_name[file.rpartition("/")[2].lower()].append(file)
        self.lists = {path.name.lower(): path for path in sorted(root.glob("*/*")) if path.suffix.lower() == ".list"}

    def find(self, wanted: str) -> list[str]:
        """Files whose path ends in `wanted`, or conversions of such files."""
        end = wanted.replace("\\", "/").lstrip("./").lower()
        stem = end.rpartition(".")[0]
        for candidate in (f"{end}.wav", f"{stem}.wav", f"{stem}.flac", end):
            name = candidate.rpartition("/")[2]
            matches = [file for file in self.by_name.get(name, []) if f"/{file.lower()}".endswith(f"/{candidate}")]
            if matches:
                return matches
        return []


def _sentence(file: str) -> str:
    """The name of the sentence, which is the same in all conditions."""
    return file.rpartition("/")[2].split(".")[0].lower()


def _listed(present: _Present, name: str) -> list[Utterance]:
    """The utterances of one list."""
    if name not in present.lists:
        known = ", ".join(sorted(present.lists)) or "none"
        raise UserError(
            f"no list {name} in a folder (lists/) of {present.root}, which has the lists: {known}.\n"
            "Give the folder that Aurora-4's discs were copied to, with their lists, as --root."
        )
    path = present.lists[name]
    match = re.match(r"(?:devtest|test)(\d\d)_", name)
    number = int(match[1]) if match else 1 if name in LISTS["clean"] else None
    utterances: list[Utterance] = []
    lines = [line.split()[0] for line in path.read_text(errors="replace").splitlines() if line.split()]
    if not lines:
        raise UserError(f"{path} lists no file: copy it again from the discs.")
    missing = []
    for line in lines:
        matches = present.find(line)
        if len(matches) > 1:
            raise UserError(
                f"{path} lists {line}, which matches {len(matches)} files below {present.root}: "
                f"{', '.join(matches[:3])}.\nKeep one copy of Aurora-4 below --root."
            )
        if not matches:
            missing.append(line)
            continue
        labels = condition_of(number) if number else {"microphone": 2 if ".wv2" in line.lower() else 1}
        file, source = matches[0], present.root / matches[0]
        utterances.append(Utterance(file, _sentence(file)[:3], functools.partial(read_raw, source), labels, (source,)))
    if missing:
        raise UserError(
            f"{path} lists {len(lines)} files, {len(missing)} of which are not below {present.root}, such as "
            f"{missing[0]}.\n"
            "Copy all discs there, or remove the missing files from the list."
        )
    return utterances
