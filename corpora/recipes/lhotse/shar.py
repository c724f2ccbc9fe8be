"""Lhotse's Shar shards: ``cuts.000000.jsonl.gz`` and ``recording.000000.tar``, read sequentially."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dvae_pyro.errors import UserError

__all__ = ["ShardFiles", "is_shar", "read_cuts", "shards_in"]


class ShardFiles(NamedTuple):
    """One shard: the file of its cuts, and the archive of their recordings in the same order."""

    cuts: Path
    recordings: Path


def is_shar(folder: Path) -> bool:
    """Whether a folder contains shards."""
    return any(folder.glob("cuts.*.jsonl*")) and any(folder.glob("recording.*.tar"))


def shards_in(folder: Path) -> list[ShardFiles]:
    """The shards of a folder, in the order of their numbers.

    Raises:
        UserError: A shard's archive of recordings is missing.
    """
    shards = []
    for cuts in sorted(folder.glob("cuts.*.jsonl*")):
        recordings = folder / f"recording.{cuts.name.split('.')[1]}.tar"
        if not recordings.is_file():
            raise UserError(f"{cuts} has no {recordings.name} beside it. Copy the shard again, or remove its cuts.")
        shards.append(ShardFiles(cuts, recordings))
    return shards


def read_cuts(shard: ShardFiles) -> Iterator[Any]:
    """The cuts of a shard with the bytes of their recordings, one at a time.

    Lhotse's reader leaves files open and runs commands given as paths; this one does neither.

    Raises:
        UserError: A file is damaged, or the two do not agree.
    """
    from lhotse.serialization import deserialize_item
    from lhotse.shar.utils import fill_shar_placeholder

    opened = gzip.open if shard.cuts.suffix == ".gz" else open
    try:
        with opened(shard.cuts, "rt", encoding="utf-8") as lines, tarfile.open(shard.recordings, "r|") as archive:
            members = iter(archive)
            for line in lines:
                cut = deserialize_item(json.loads(line))
                data, described = (_content(archive, members) for _ in range(2))
                if not data[0].startswith(f"{cut.id}."):
                    raise ValueError(f"cut {cut.id} has {data[0]} in its place")
                if data[1] is not None and described[1] is not None:
                    recording = deserialize_item(json.loads(described[1]))
                    fill_shar_placeholder(manifest=recording, data=data[1], tarpath=Path(data[0]))
                    cut.recording = recording
                yield cut
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
        raise UserError(
            f"shard {shard.cuts} is damaged or does not agree with {shard.recordings.name} ({error}).\n"
            "Copy it anew, or make the shards again: python -m corpora.shard."
        ) from error


def _content(archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo]) -> tuple[str, bytes | None]:
    """Name and bytes of the next member; no bytes where the writer had none."""
    member = next(members, None)
    if member is None:
        raise EOFError("it ends too early")
    stream = archive.extractfile(member)
    empty = member.name.endswith((".nodata", ".nometa")) or stream is None
    return member.name, None if empty or stream is None else stream.read()
