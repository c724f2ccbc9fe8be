"""TIMIT (LDC93S1): 630 speakers of American English, ten sentences each, with manual phone labels.

    ROOT/.../TRAIN/DR1/FCJF0/SX217.WAV   462 speakers: train
    ROOT/.../TEST/DR1/FAKS0/SX223.WAV    168 speakers, of whom 50 are valid and 24 test

``TRAIN`` and ``TEST`` may be anywhere below the root, in any case. Files are NIST SPHERE, or converted to wav
(``SX217.WAV.wav`` is preferred to ``SX217.WAV``). The two sentences that all speakers read (SA1, SA2) are omitted, as
is usual; ``data.subset=with_sa`` keeps them.

The test speakers are the core test set of the corpus: two men and a woman of each of the eight dialects, eight
sentences each. The validation speakers are the 50 of Halberstadt (1998), as in Kaldi's recipe.

Labels of an utterance: ``sex`` ("f" or "m"), ``dialect`` ("dr1" to "dr8"), ``content``, the list of its phones as
(name, start, end) in samples of the file, end exclusive, from ``.PHN``, and ``transcript``, the phones mapped to the 39
classes of phone error rates. The times of phones are not changed by trimming: set ``data.trim_db=null`` to align frames
and phones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from corpora.audio.io import read_audio
from corpora.recipes.folder import corpus_root, find_audio, find_folders
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Utterance
from dvae_pyro.errors import UserError

__all__ = ["CORE_TEST", "DEVELOPMENT", "SIZES", "Phone", "folded", "open_timit", "read_phones"]

#: The 24 speakers of the core test set, three of each dialect.
CORE_TEST = (
    *("mdab0", "mwbt0", "felc0", "mtas1", "mwew0", "fpas0", "mjmp0", "mlnt0", "fpkt0", "mlll0", "mtls0", "fjlm0"),
    *("mbpm0", "mklt0", "fnlp0", "mcmj0", "mjdh0", "fmgd0", "mgrt0", "mnjm0", "fdhc0", "mjln0", "mpam0", "fmld0"),
)
#: The 50 validation speakers, of the other 144 in TEST.
DEVELOPMENT = (
    *("faks0", "fdac1", "fjem0", "mgwt0", "mjar0", "mmdb1", "mmdm2", "mpdf0", "fcmh0", "fkms0", "mbdg0", "mbwm0"),
    *("mcsh0", "fadg0", "fdms0", "fedw0", "mgjf0", "mglb0", "mrtk0", "mtaa0", "mtdt0", "mthc0", "mwjg0", "fnmr0"),
    *("frew0", "fsem0", "mbns0", "mmjr0", "mdls0", "mdlf0", "mdvc0", "mers0", "fmah0", "fdrw0", "mrcs0", "mrjm4"),
    *("fcal1", "mmwh0", "fjsj0", "majc0", "mjsw0", "mreb0", "fgjd0", "fjmg0", "mroa0", "mteb0", "mjfc0", "mrjr0"),
    *("fmml0", "mrws1"),
)
#: Speakers of each split of the whole corpus.
SIZES = {"train": 462, "valid": len(DEVELOPMENT), "test": len(CORE_TEST)}

#: Mapping of the 61 phones to 39 classes after Lee & Hon (1989); phones that are not listed are kept.
FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "el": "l", "em": "m", "en": "n"},
    **{"nx": "n", "eng": "ng", "zh": "sh", "ux": "uw"},
    **dict.fromkeys(("pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"), "sil"),
}
NOT_COUNTED = "q"

#: The folder of each split.
FOLDERS = {"train": "train", "valid": "test", "test": "test"}


class Phone(NamedTuple):
    """A phone of an utterance, from sample `start` to sample `end` (exclusive) of the file."""

    name: str
    start: int
    end: int


def open_timit(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed is not used.

    Raises:
        UserError: The root has no ``TRAIN`` or ``TEST``, a file is in no speaker's folder, a split is empty, or a
            ``.PHN`` file cannot be read.
    """
    if settings.subset not in (None, "with_sa"):
        raise UserError(
            f"data.subset={settings.subset}: expected null, without the sentences SA1 and SA2, or with_sa, with them."
        )
    root = corpus_root(settings)
    folders = find_folders(root, set(FOLDERS.values()))
    corpus = Corpus("timit", str(root), {})
    for split in needed:
        if not folders[FOLDERS[split]]:
            raise UserError(_no_folder(root, split))
        wanted = {"train": None, "valid": set(DEVELOPMENT), "test": set(CORE_TEST)}[split]
        corpus.splits[split], notes = _utterances(root, folders[FOLDERS[split]], wanted, settings.subset == "with_sa")
        if not corpus.splits[split]:
            where = ", ".join(str(folder) for folder in folders[FOLDERS[split]])
            whom = "" if wanted is None else f" of the {len(wanted)} speakers of split {split}, such as {min(wanted)},"
            raise UserError(
                f"no sentence{whom} below {where}: expected files such as DR1/FCJF0/SX217.WAV (any case) there."
            )
        speakers = len({utterance.speaker for utterance in corpus.splits[split]})
        if speakers != SIZES[split]:
            notes.append(f"{speakers} speakers, expected {SIZES[split]} for the complete TIMIT")
        corpus.notes[split] = notes
    return corpus


def folded(phones: Sequence[Phone]) -> list[str]:
    """Names of phones mapped to the 39 classes of Lee & Hon (1989), without glottal stops.

    Example:
        >>> folded([Phone(name, 0, 1) for name in ("h#", "q", "ix", "tcl", "t")])
        ['sil', 'ih', 'sil', 't']
    """
    return [FOLDED.get(phone.name, phone.name) for phone in phones if phone.name != NOT_COUNTED]


def read_phones(path: Path) -> list[Phone]:
    """Read the phones of a ``.PHN`` file: first sample, end (exclusive) and name on each line.

    Raises:
        UserError: The file has another format.
    """
    phones = []
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(), start=1):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if match is None or int(match[2]) < int(match[1]):
            raise UserError(
                f"{path}, line {number}: got {line!r}, expected first sample, end and phone such as '0 3050 h#'.\n"
                "Copy the file again from the corpus, or remove it to read the utterance without phones."
            )
        phones.append(Phone(match[3], int(match[1]), int(match[2])))
    return phones


def _utterances(
    root: Path, folders: Sequence[Path], wanted: set[str] | None, with_sa: bool
) -> tuple[list[Utterance], list[str]]:
    """The sentences of a split, and notes about them."""
    utterances: list[Utterance] = []
    left, unmarked = 0, 0
    for folder in folders:
        sounds: dict[PurePosixPath, str] = {}
        phones: dict[PurePosixPath, str] = {}
        for file in find_audio(folder, root, (".wav", ".flac", ".phn")):
            path = PurePosixPath(file)
            sentence = path.with_name(path.name.split(".")[0].lower())
            kind = phones if path.suffix.lower() == ".phn" else sounds
            kind[sentence] = max(kind.get(sentence, ""), file, key=len)  # prefers SX217.WAV.wav to SX217.WAV
        for sentence, file in sounds.items():
            speaker = sentence.parent.name.lower()
            if re.fullmatch(r"[fm][a-z]{3}\d", speaker) is None:
                raise UserError(
                    f"{root / file} is in no speaker's folder such as FCJF0: got {sentence.parent.name!r}.\n"
                    "Give a folder that contains only TIMIT as --root; for other layouts use --corpus folder."
                )
            if wanted is not None and speaker not in wanted:
                continue
            if sentence.name.startswith("sa") and not with_sa:
                left += 1
                continue
            labels: dict[str, object] = {"sex": speaker[0]}
            dialect = sentence.parent.parent.name.lower()
            if re.fullmatch(r"dr\d", dialect):
                labels["dialect"] = dialect
            if sentence in phones:
                content = read_phones(root / phones[sentence])
                labels |= {"content": content, "transcript": folded(content)}
            else:
                unmarked += 1
            load = functools.partial(read_audio, root / file)
            utterances.append(Utterance(file, speaker, load, labels, (root / file,)))
    notes = []
    if left:
        notes.append(f"left out {left} sentences SA1 and SA2, which all speakers read (data.subset=with_sa keeps them)")
    if unmarked:
        notes.append(f"{unmarked} of {len(utterances)} sentences have no .PHN beside them, so no phone labels")
    return sorted(utterances, key=lambda utterance: utterance.file), notes


def _no_folder(root: Path, split: str) -> str:
    name = FOLDERS[split].upper()
    if root.name.lower() in FOLDERS.values():
        return f"no folder {name} below {root}, which is one of TIMIT's halves: give its parent folder as --root."
    return (
        f"no folder {name} (for split {split}) anywhere below {root}: expected TIMIT's TRAIN and TEST there.\n"
        "Give the folder that the disc was copied to as --root; for other layouts use --corpus folder."
    )
