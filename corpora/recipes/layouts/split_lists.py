"""Split lists of corpora whose folders do not define the splits."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dvae_pyro.errors import UserError

__all__ = ["Listed", "common_voice_lists", "speechocean_lists"]


class Listed(NamedTuple):
    """An entry of a list: the file's split, its speaker (empty: taken from the path), and the list's name."""

    split: str
    speaker: str
    source: str


def common_voice_lists(root: Path, files: Sequence[str]) -> dict[str, Listed]:
    """``train.tsv``, ``dev.tsv`` and ``test.tsv`` beside each folder ``clips``: columns ``client_id`` and ``path``.

    Raises:
        UserError: There is no list beside a folder of clips, or one lacks these columns.
    """
    listed: dict[str, Listed] = {}
    for clips in sorted({PurePosixPath(file).parent for file in files}):
        names = {"train.tsv": "train", "dev.tsv": "valid", "test.tsv": "test"}
        present = [name for name in names if (root / clips.parent / name).is_file()]
        if not present:
            raise UserError(_no_list(root / clips.parent, "Common Voice", "train.tsv, dev.tsv or test.tsv"))
        for name in present:
            for row in _rows(root / clips.parent / name):
                listed[str(clips / row["path"])] = Listed(names[name], row["client_id"], name)
    return listed


def speechocean_lists(root: Path, files: Sequence[str]) -> dict[str, Listed]:
    """``train/utt2spk`` and ``test/utt2spk`` beside ``WAVE``, or above the speakers' folders: names of utterances.

    Raises:
        UserError: There is no such list.
    """
    listed: dict[str, Listed] = {}
    for folder in sorted({_above_speakers(file) for file in files}):
        split_of: dict[str, Listed] = {}
        for split in ("train", "test"):
            path = next(
                (path for name in ("utt2spk", "wav.scp") if (path := root / folder / split / name).is_file()), None
            )
            lines = [] if path is None else path.read_text(encoding="utf-8", errors="replace").splitlines()
            split_of |= {
                line.split()[0]: Listed(split, "", f"{split}/{path and path.name}") for line in lines if line.split()
            }
        if not split_of:
            raise UserError(_no_list(root / folder, "speechocean762", "train/utt2spk and test/utt2spk"))
        here = [file for file in files if _above_speakers(file) == folder]
        listed |= {file: split_of[stem] for file in here if (stem := PurePosixPath(file).stem) in split_of}
    return listed


def _above_speakers(file: str) -> PurePosixPath:
    folder = PurePosixPath(file).parent.parent
    return folder.parent if folder.name.upper() == "WAVE" else folder


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"client_id", "path"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path}: got columns {reader.fieldnames}, expected client_id and path as in Common Voice.")
        for row in reader:
            name = row["path"] or ""
            yield {**row, "path": name if "." in name else f"{name}.mp3"}  # releases before 2019 leave the ending out


def _no_list(folder: Path, title: str, names: str) -> str:
    return (
        f"no {names} in {folder}: {title} defines its splits there; without them test data could be used in training.\n"
        "Copy the lists from the corpus, or split all files by seed with data.layout=none."
    )
