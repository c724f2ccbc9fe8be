"""IAM-OnDB: lines of handwriting on a whiteboard (Liwicki & Bunke, "IAM-OnDB, an on-line English sentence database
acquired from handwritten text on a whiteboard", 2005).

    ROOT/lineStrokes/a01/a01-000/a01-000u-01.xml    the lines of form a01-000u: strokes and their points
    ROOT/trainset.txt, testset_v.txt, testset_f.txt forms of train, valid and test, one per line; anywhere below ROOT
    ROOT/original/a01/a01-000/strokesu.xml          the writer of the form; optional

The lists are those of the database's benchmark (``task1``), which are writer-disjoint; its second validation set,
``testset_t.txt``, is not used. The y axis points downwards in the files and upwards here.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from corpora.recipes.folder import corpus_root, find_folders
from corpora.recipes.strokes import moving
from corpora.settings import DataSettings
from corpora.types import SPLITS, AudioFault, Corpus, Utterance
from dvae_pyro.errors import UserError

__all__ = ["LISTS", "open_iam_ondb"]

#: The list of forms of each split.
LISTS = {"train": "trainset.txt", "valid": "testset_v.txt", "test": "testset_f.txt"}


def open_iam_ondb(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the lines of the needed splits below ``data.root``; the seed is that of the noise.

    Lines are named by their path below the root, and are checked when they are loaded.

    Raises:
        UserError: There is no folder of lines, no list of a needed split, or none of its forms has a line.
    """
    root = corpus_root(settings)
    lines = _lines(root)
    forms = {split: _forms(root, split, needed=split in needed) for split in SPLITS}
    writers = _Writers(root)
    corpus = Corpus("iam_ondb", str(root), {})
    for split in needed:
        utterances = []
        for form in forms[split]:
            for path in lines.get(form, ()):
                file = path.relative_to(root).as_posix()
                load = moving(functools.partial(_read_line, path), settings, split, seed, file)
                source = (path, settings.dequantise, split, seed)
                utterances.append(Utterance(file, writers.of(form), load, {"form": form}, source))
        if not utterances:
            raise UserError(f"none of the {len(forms[split])} forms of {LISTS[split]} has a line below {root}.")
        corpus.splits[split] = utterances
        corpus.notes[split] = _notes(split, forms, lines, writers)
    return corpus


def _lines(root: Path) -> dict[str, list[Path]]:
    """The files of each form's lines."""
    folders = find_folders(root, ["linestrokes"])["linestrokes"]
    if not folders:
        raise UserError(
            f"no folder lineStrokes/ below {root}: expected IAM-OnDB's lines there (lineStrokes-all.tar.gz), such as "
            "lineStrokes/a01/a01-000/a01-000u-01.xml."
        )
    lines: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(folders[0].rglob("*.xml")):
        lines[path.stem.rpartition("-")[0]].append(path)
    return lines


def _forms(root: Path, split: str, *, needed: bool) -> list[str]:
    """The forms of a split, in the order of its list."""
    places = sorted(root.rglob(LISTS[split]))
    if not places:
        if needed:
            raise UserError(
                f"no {LISTS[split]} below {root}: it lists the forms of split {split}, and comes with IAM-OnDB (task1)."
            )
        return []
    names = places[0].read_text(encoding="utf-8", errors="replace").split()
    return list(dict.fromkeys(names))


class _Writers:
    """The writer of each form, read from the folder ``original`` if it exists."""

    def __init__(self, root: Path) -> None:
        folders = find_folders(root, ["original"])["original"]
        self.folder = folders[0] if folders else None
        self._known: dict[str, str | None] = {}

    def known(self, form: str) -> str | None:
        """The writer's number; None if unknown."""
        if form not in self._known:
            text, letter = form[:7], form[7:]
            path = None if self.folder is None else self.folder / form[:3] / text / f"strokes{letter}.xml"
            self._known[form] = None if path is None or not path.is_file() else _writer(path)
        return self._known[form]

    def of(self, form: str) -> str:
        """The writer's number, or the form's name if unknown."""
        return self.known(form) or form


def _writer(path: Path) -> str | None:
    """The ``writerID`` of ``General/Form``, which precedes the strokes; None if there is none."""
    try:
        for _, element in ElementTree.iterparse(path, events=("start",)):
            if element.tag == "Form":
                return str(element.get("writerID", "")) or None
            if element.tag == "StrokeSet":
                break
    except ElementTree.ParseError as error:
        raise UserError(f"{path} cannot be read, which has the writer of a form: {error}.") from error
    return None


def _notes(split: str, forms: dict[str, list[str]], lines: dict[str, list[Path]], writers: _Writers) -> list[str]:
    notes = []
    empty = [form for form in forms[split] if form not in lines]
    if empty:
        which = ", ".join(empty[:10])
        notes.append(f"{len(empty)} of {len(forms[split])} forms of {LISTS[split]} have no line: {which}")
    unknown = [form for form in forms[split] if form in lines and writers.known(form) is None]
    if unknown:
        notes.append(
            f"the writer of {len(unknown)} of {len(forms[split])} forms is unknown (it is in original/): each form "
            "counts as its own writer; splits are as writer-disjoint as the lists"
        )
    for other in SPLITS:
        here, there = ({writers.known(form) for form in forms[s]} - {None} for s in (split, other))
        if other != split and here & there:
            both = sorted(str(writer) for writer in here & there)
            notes.append(f"{len(both)} writers are also in {LISTS[other]}: {', '.join(both[:10])}")
    return notes


def _read_line(path: Path) -> NDArray[np.float64]:
    """Points (T, 3) of a line: x, y upwards, and 1 at the last of each stroke."""
    try:
        strokes = ElementTree.parse(path).getroot().findall("StrokeSet/Stroke")
        points = [
            (float(point.attrib["x"]), -float(point.attrib["y"]), float(last))
            for stroke in strokes
            for last, point in _with_end(stroke.findall("Point"))
        ]
    except OSError as error:
        raise AudioFault(f"cannot be read: {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise AudioFault(f"is not XML: {error}") from error
    except KeyError as error:
        raise AudioFault(f"is not a line of IAM-OnDB: a Point has no {error}") from error
    except ValueError as error:
        raise AudioFault(f"is not a line of IAM-OnDB: a Point has an invalid coordinate, {error}") from error
    if not points:
        raise AudioFault("is not a line of IAM-OnDB: it has no StrokeSet with a Stroke with a Point")
    return np.array(points)


def _with_end(points: Sequence[ElementTree.Element]) -> list[tuple[bool, ElementTree.Element]]:
    return [(i == len(points) - 1, point) for i, point in enumerate(points)]
