"""TIMIT (LDC93S1): 630 speakers of American English, ten sentences each, phones marked by hand.

    ROOT/.../TRAIN/DR1/FCJF0/SX217.WAV   462 speakers: train
    ROOT/.../TEST/DR1/FAKS0/SX223.WAV    168 speakers, of whom 50 validate and 24 test

``TRAIN`` and ``TEST`` may lie anywhere below the root, in capitals or not. Files are NIST SPHERE, or wav where they
have been converted (``SX217.WAV.wav`` beside ``SX217.WAV`` is taken in its place). The two sentences that all speakers
read (SA1, SA2) are left out, as is usual; ``data.subset=with_sa`` keeps them.

Who tests is the core test set that comes with the corpus: two men and a woman of each of the eight dialects, eight
sentences each. Who validates are the 50 speakers of Halberstadt (1998), as in Kaldi's recipe.

Labels of an utterance: ``sex`` ("f" or "m"), ``dialect`` ("dr1" to "dr8"), ``content``, the list of its phones as
(name, start, end) in samples of the file, end exclusive, from ``.PHN``, and ``transcript``, these as the 39 kinds that
error rates are counted in. Trimming moves the sound, not these: set
``data.trim_db=null`` where frames and phones are to be put side by side.
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
#: The 50 speakers, of the other 144 in TEST, that validate.
DEVELOPMENT = (
    *("faks0", "fdac1", "fjem0", "mgwt0", "mjar0", "mmdb1", "mmdm2", "mpdf0", "fcmh0", "fkms0", "mbdg0", "mbwm0"),
    *("mcsh0", "fadg0", "fdms0", "fedw0", "mgjf0", "mglb0", "mrtk0", "mtaa0", "mtdt0", "mthc0", "mwjg0", "fnmr0"),
    *("frew0", "fsem0", "mbns0", "mmjr0", "mdls0", "mdlf0", "mdvc0", "mers0", "fmah0", "fdrw0", "mrcs0", "mrjm4"),
    *("fcal1", "mmwh0", "fjsj0", "majc0", "mjsw0", "mreb0", "fgjd0", "fjmg0", "mroa0", "mteb0", "mjfc0", "mrjr0"),
    *("fmml0", "mrws1"),
)
#: Speakers of each split of the whole corpus.
SIZES = {"train": 462, "valid": len(DEVELOPMENT), "test": len(CORE_TEST)}

#: The 61 phones that are not counted as they are but as another, after Lee & Hon (1989): 39 kinds are left.
FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "el": "l", "em": "m", "en": "n"},
    **{"nx": "n", "eng": "ng", "zh": "sh", "ux": "uw"},
    **dict.fromkeys(("pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"), "sil"),
}
NOT_COUNTED = "q"

#: The folder that each split lies in.
FOLDERS = {"train": "train", "valid": "test", "test": "test"}


class Phone(NamedTuple):
    """A phone in an utterance: from sample `start` to before sample `end` of the file."""

    name: str
    start: int
    end: int


def open_timit(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the needed splits below ``data.root``; the seed decides nothing.

    Raises:
        UserError: The root has no ``TRAIN`` or ``TEST``, a file lies in no speaker's folder, a split is empty, or a
        file of
            phones cannot be read.
    """
    if settings.subset not in (None, "with_sa"):
        raise UserError(
            f"data.subset={settings.subset}: TIMIT is read without the sentences SA1 and SA2 (data.subset=null) "
            f"or with them "
            "(data.subset=with_sa)."
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
            notes.append(f"{speakers} speakers, where TIMIT has {SIZES[split]}")
        corpus.notes[split] = notes
    return corpus


def folded(phones: Sequence[Phone]) -> list[str]:
    """Names of phones as the 39 kinds of Lee & Hon (1989), glottal stops left out.

    Example:
        >>> folded([Phone(name, 0, 1) for name in ("h#", "q", "ix", "tcl", "t")])
        ['sil', 'ih', 'sil', 't']
    """
    return [FOLDED.get(phone.name, phone.name) for phone in phones if phone.name != NOT_COUNTED]


def read_phones(path: Path) -> list[Phone]:
    """The phones of a ``.PHN`` file: a line each of first sample, end (exclusive) and name.

    Raises:
        UserError: The file is not of that form.
    """
    phones = []
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(), start=1):
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\S+)\s*", line)
        if match is None or int(match[2]) < int(match[1]):
            raise UserError(
                f"{path}, line {number}: got {line!r}, expected first sample, end and phone such as '0 3050 h#'.\n"
                "Copy the file anew from the corpus, or remove it to do without its phones."
            )
        phones.append(Phone(match[3], int(match[1]), int(match[2])))
    return phones


def _utterances(
    root: Path, folders: Sequence[Path], wanted: set[str] | None, with_sa: bool
) -> tuple[list[Utterance], list[str]]:
    """The sentences of a split, and what to say about them."""
    found: list[Utterance] = []
    left, unmarked = 0, 0
    for folder in folders:
        sounds: dict[PurePosixPath, str] = {}
        phones: dict[PurePosixPath, str] = {}
        for file in find_audio(folder, root, (".wav", ".flac", ".phn")):
            path = PurePosixPath(file)
            sentence = path.with_name(path.name.split(".")[0].lower())
            kind = phones if path.suffix.lower() == ".phn" else sounds
            kind[sentence] = max(kind.get(sentence, ""), file, key=len)  # SX217.WAV.wav before SX217.WAV
        for sentence, file in sounds.items():
            speaker = sentence.parent.name.lower()
            if re.fullmatch(r"[fm][a-z]{3}\d", speaker) is None:
                raise UserError(
                    f"{root / file} lies in no speaker's folder such as FCJF0: got {sentence.parent.name!r}.\n"
                    "Give the folder that holds TIMIT alone as --root; audio laid out otherwise is --corpus folder."
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
                found_phones = read_phones(root / phones[sentence])
                labels |= {"content": found_phones, "transcript": folded(found_phones)}
            else:
                unmarked += 1
            found.append(Utterance(file, speaker, functools.partial(read_audio, root / file), labels, (root / file,)))
    notes = []
    if left:
        notes.append(f"left out {left} sentences SA1 and SA2, which all speakers read (data.subset=with_sa keeps them)")
    if unmarked:
        notes.append(f"{unmarked} of {len(found)} sentences have no .PHN beside them: no phones are known of these")
    return sorted(found, key=lambda utterance: utterance.file), notes


def _no_folder(root: Path, split: str) -> str:
    name = FOLDERS[split].upper()
    if root.name.lower() in FOLDERS.values():
        return f"no folder {name} below {root}, itself one of TIMIT's halves: give the folder above it as --root."
    return (
        f"no folder {name} (for split {split}) anywhere below {root}: expected TIMIT's TRAIN and TEST there.\n"
        "Give the folder that the disc was copied to as --root; audio laid out otherwise is --corpus folder."
    )
