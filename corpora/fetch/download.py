"""Downloading the files of a recipe: verification by checksums, and cutting of excerpts."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from corpora.fetch.recipes import RECIPES, Excerpt, Recipe, excerpts
from dvae_pyro.errors import UserError, first_line
from dvae_pyro.files import disk_errors, write_atomically
from dvae_pyro.progress import progress_bar

__all__ = ["fetch"]

TRIES = 3
"""Attempts at each file, with a growing pause between them."""


def fetch(name: str, out: Path, *, url: str | None = None, yes: bool = False) -> None:
    """Download a corpus into a folder; existing files are verified and kept.

    Args:
        name: the corpus, of `RECIPES`.
        out: the folder.
        url: download from here instead of the recipe's URL.
        yes: do not ask.

    Raises:
        UserError: there is no terminal for the confirmation, a download fails, a checksum differs, or a file cannot be
            written.
    """
    recipe = RECIPES[name]
    if url is not None:
        recipe = recipe._replace(url=url.rstrip("/") + "/")
    missing = [item for item in excerpts(recipe) if not _complete(out / item.file, item)]
    if not missing:
        print(f"{out} is complete")
        return
    size = sum(item.bytes for item in missing) / 1e6
    print(
        f"{name}: {recipe.title}\n"
        f"  from     {recipe.url}\n"
        f"  download {len(missing)} files, {size:.0f} MB\n"
        f"  to       {out.absolute()}\n"
        f"  licence  {recipe.licence}\n"
        f"  by       {recipe.attribution}"
    )
    if not yes and not _agreed():
        print("nothing was downloaded")
        return
    _download(recipe, missing, out)
    licence = f"{recipe.attribution}\n\n{recipe.licence}\n\nDownloaded from {recipe.url}\n"
    write_atomically(out / "LICENSE.txt", licence.encode())
    print(f"{out} is complete; train on it: python -m inference.svi --model dkf --corpus folder --root {out}")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UserError("there is no terminal for the confirmation. Add --yes to download without it.")
    return input("Download? [y/N] ").strip().lower() in ("y", "yes")


def _download(recipe: Recipe, missing: Sequence[Excerpt], out: Path) -> None:
    """Download source after source, and write the excerpt of each before the next one."""
    import pooch
    import requests  # what pooch downloads with

    pooch.get_logger().setLevel("WARNING")
    sources = out / ".sources"
    registry = {item.source: f"sha256:{item.sha256}" for item in missing}
    store = pooch.create(sources, recipe.url, registry=registry, retry_if_failed=TRIES - 1)
    total = sum(item.bytes for item in missing)
    with disk_errors(out), progress_bar("downloading", total, "B", unit_scale=True) as bar:
        for item in missing:
            try:
                source = Path(store.fetch(item.source))
            except requests.exceptions.RequestException as error:
                raise UserError(
                    f"cannot download {recipe.url}{item.source}: {first_line(error)}\n"
                    "Check the connection and run the same command again: it continues from here."
                ) from error
            except ValueError as error:  # pooch's for a wrong checksum; it has removed the file
                raise UserError(
                    f"{recipe.url}{item.source} has another checksum than expected, and was not kept.\n"
                    "Run the same command again; if the error stays, the source has changed or a proxy alters it."
                ) from error
            _cut(source, out / item.file, item)
            source.unlink()
            bar.update(item.bytes)
        for folder in sorted(sources.rglob("*"), reverse=True):
            folder.rmdir()
        sources.rmdir()


def _cut(source: Path, target: Path, item: Excerpt) -> None:
    """Write the excerpt of a source as 16-bit FLAC."""
    samples, rate = soundfile.read(source, dtype="int16", start=item.start, frames=item.samples)
    if _checksum(samples) != item.samples_sha256:
        raise UserError(f"the excerpt {item.file} has other samples than expected: the FLAC decoder is faulty.")
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="FLAC", subtype="PCM_16")
    write_atomically(target, stream)


def _complete(path: Path, item: Excerpt) -> bool:
    """Whether a file is there with the samples of the excerpt."""
    if not path.is_file():
        return False
    try:
        samples, _ = soundfile.read(path, dtype="int16")
    except (soundfile.LibsndfileError, OSError):
        return False
    return _checksum(samples) == item.samples_sha256


def _checksum(samples: NDArray[np.int16]) -> str:
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
