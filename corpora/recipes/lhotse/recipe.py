"""Any corpus with Lhotse manifests.

``data.root`` is one of

- a manifest of cuts, such as ``cuts.jsonl.gz``;
- a folder written by ``lhotse prepare``: ``*_recordings_train.jsonl.gz`` with ``*_supervisions_train.jsonl.gz``, where
  each supervision is an utterance, or manifests of cuts, one or more per split, where each cut is an utterance;
- a folder of Shar shards, or a folder of such folders, one per split.

The split is defined by ``data.cuts.train=FILE`` and so on, else by words in the names (`corpora.recipes.layouts`), else
by the custom field ``split`` of cuts or supervisions, else drawn by the seed over speakers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpora.recipes.layouts.assignment import assign_splits, describe
from corpora.recipes.layouts.recognition import LISTED, FileInfo, TreeContents, meanings
from corpora.recipes.layouts.table import split_of
from corpora.recipes.lhotse.cuts import is_mixed, speaker_of, split_of_cut, utterance_of
from corpora.recipes.lhotse.shar import is_shar, read_cuts, shards_in
from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus
from dvae_pyro.errors import UserError, first_line

__all__ = ["manifests_of", "open_lhotse", "require_lhotse"]

_MANIFEST = re.compile(r"(?P<stem>.+?)\.(jsonl|json|yaml)(\.gz)?")
_KIND = re.compile(r"(?<![a-z])(cuts|recordings|supervisions)(?![a-z])")


def open_lhotse(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Find the utterances of the needed splits.

    Raises:
        UserError: Lhotse is not installed, there is no manifest, a manifest cannot be read, a needed split has no cut,
            or the sound of a cut is the output of a command.
    """
    require_lhotse()
    named = manifests_of(settings)
    cuts: dict[str, Any] = {}
    places: list[FileInfo] = []
    present = {split for split, _ in named.values()}
    read = {*needed, None} | ({"train"} if "valid" not in present else set())
    for name, (split, path) in named.items():
        if split not in read:
            continue
        for cut in _cuts(path):
            key = str(cut.id) if str(cut.id) not in cuts else f"{name}/{cut.id}"
            custom = None if split is not None else split_of_cut(cut)
            source = "field split" if custom is not None else name if split is not None else ""
            places.append(FileInfo(key, speaker_of(cut), split or _meant(custom, cut), source, LISTED))
            cuts[key] = cut
    if not places:
        raise UserError(f"no cut for split {' or '.join(needed)} in {settings.root or 'data.cuts'}.")
    assigned = assign_splits(places, seed, validated="valid" in present)
    corpus = Corpus("lhotse", settings.root or "", {})
    corpus.layout = f"lhotse: {describe(TreeContents(places, Counter()), assigned, seed)}"
    for split in needed:
        members = [cuts[place.file] for place in assigned.splits[split]]
        if not members:
            others = ", ".join(other for other, of_split in assigned.splits.items() if of_split)
            raise UserError(
                f"no cut for split {split} in {settings.root or 'data.cuts'}, which has {others}.\n"
                f"Set its manifest: data.cuts.{split}=FILE."
            )
        labelled = any(map(is_mixed, members))
        corpus.splits[split] = [utterance_of(cut, labelled=labelled) for cut in members]
        if split in assigned.by_seed:
            corpus.notes[split] = [f"split by seed {seed}: {len(members)} of {len(places)} cuts"]
    return corpus


def require_lhotse() -> None:
    """Check that Lhotse is installed.

    Raises:
        UserError: It is not installed.
    """
    try:
        import lhotse  # noqa: F401  # only whether it is installed
    except ImportError as error:
        raise UserError("corpus 'lhotse' needs the package: pip install -e '.[lhotse]'.") from error


def manifests_of(settings: DataSettings) -> dict[str, tuple[str | None, Path]]:
    """The manifests and folders of shards of the settings: split (None: undefined) and path, by name.

    Raises:
        UserError: There is none, or the split of a name is ambiguous.
    """
    root = None if settings.root is None else Path(settings.root).expanduser()
    by_split = {split: getattr(settings.cuts, split) for split in SPLITS}
    if any(by_split.values()):
        paths = {split: _existing(split, name, root) for split, name in by_split.items() if name is not None}
        return {f"data.cuts.{split}": (split, path) for split, path in paths.items()}
    if root is None:
        raise UserError(
            "corpus 'lhotse' needs manifests: give --root cuts.jsonl.gz, a folder, or data.cuts.train=FILE."
        )
    if not root.exists():
        raise UserError(f"no file or folder {root}: check --root, relative paths start at {Path.cwd()}.")
    if root.is_file() or is_shar(root):
        return {root.name: (None, root)}
    names = {path.name: path for path in sorted(root.iterdir()) if is_shar(path)}
    if not names:
        files = {path.name: path for path in sorted(root.iterdir()) if _MANIFEST.fullmatch(path.name)}
        kinds = {name: kind for name in files if (kind := _kind(name)) is not None}
        wanted = "cuts" if "cuts" in kinds.values() else "recordings"
        names = {name: files[name] for name, kind in kinds.items() if kind == wanted}
    if not names:
        raise UserError(
            f"no manifest of Lhotse in {root}: expected *cuts*.jsonl.gz, *recordings*.jsonl.gz with "
            "*supervisions*.jsonl.gz, or Shar shards cuts.000000.jsonl.gz with recording.000000.tar."
        )
    splits = meanings(root, list(names), anywhere=True)
    if len(names) > 1 and len(splits) < len(names):
        unclear = next(name for name in names if name not in splits)
        raise UserError(
            f"{root} has {len(names)} manifests, and {unclear} has no split in its name: its split is ambiguous.\n"
            f"Set the manifests: data.cuts.train=FILE data.cuts.valid=FILE data.cuts.test=FILE."
        )
    return {name: (splits.get(name), path) for name, path in names.items()}


def _existing(split: str, name: str, root: Path | None) -> Path:
    paths = [*([] if root is None else [root / name]), Path(name).expanduser()]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise UserError(f"data.cuts.{split}={name}: no file or folder {' or '.join(map(str, paths))}.")
    return path


def _kind(name: str) -> str | None:
    match = _KIND.search(name.lower())
    return None if match is None else match[1]


def _meant(custom: str | None, cut: Any) -> str | None:
    if custom is None:
        return None
    split = split_of(custom)
    if split not in SPLITS:
        raise UserError(f"cut {cut.id}: its field split is {custom!r}, expected one of {', '.join(SPLITS)}.")
    return split


def _cuts(path: Path) -> Iterator[Any]:
    """The cuts of a manifest, a folder of shards, or of recordings with their supervisions."""
    if path.is_dir():
        for shard in shards_in(path):
            yield from read_cuts(shard)
        return
    if _kind(path.name) in ("recordings", "supervisions"):
        yield from _supervised(path)
        return
    manifest = _load(path)
    if type(manifest).__name__ != "CutSet":
        if type(manifest).__name__ == "RecordingSet":
            yield from _supervised(path)
            return
        raise UserError(f"{path} is a {type(manifest).__name__}, expected a manifest of cuts or recordings.")
    yield from manifest


def _supervised(path: Path) -> Iterator[Any]:
    """One cut per supervision; whole recordings if there are no supervisions."""
    from lhotse import CutSet

    paths = {kind: path.with_name(_KIND.sub(kind, path.name)) for kind in ("recordings", "supervisions")}
    present = {kind: _load(manifest) for kind, manifest in paths.items() if manifest.is_file()}
    if "recordings" not in present:
        raise UserError(f"{path} has no {paths['recordings'].name} beside it, which lists the recordings.")
    cuts = CutSet.from_manifests(**present)
    for cut in cuts.trim_to_supervisions(keep_overlapping=False) if "supervisions" in present else cuts:
        if cut.supervisions:  # Lhotse's ids end in an index over the whole set, or are random
            cut.id = str(cut.supervisions[0].id)
        yield cut


def _load(path: Path) -> Any:
    from lhotse import load_manifest

    try:
        return load_manifest(path)
    except Exception as error:  # the library raises errors of many types for damaged files
        raise UserError(f"{path} cannot be read by Lhotse as a manifest: {first_line(error)}") from error
