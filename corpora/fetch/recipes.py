"""The downloadable corpora: source, licence, and the list of files with checksums."""

from __future__ import annotations

import csv
import importlib.resources
from typing import NamedTuple

__all__ = ["RECIPES", "Excerpt", "Recipe", "excerpts"]


class Recipe(NamedTuple):
    """A corpus that can be downloaded.

    Attributes:
        title: a short description.
        url: the folder that the sources of its files are relative to, at a fixed version.
        licence: name and address of the licence.
        attribution: the required attribution, and the changes to the data.
        manifest: name of the list of files, in the folder of this module.
    """

    title: str
    url: str
    licence: str
    attribution: str
    manifest: str


class Excerpt(NamedTuple):
    """A file of a corpus, an excerpt of a file of its source.

    Attributes:
        file: path in the corpus.
        source: path below the recipe's URL.
        bytes: size of the source.
        sha256: checksum of the source.
        start: first sample of the excerpt.
        samples: number of samples of the excerpt.
        samples_sha256: checksum of the excerpt's 16-bit samples, little-endian.
    """

    file: str
    source: str
    bytes: int
    sha256: str
    start: int
    samples: int
    samples_sha256: str


RECIPES: dict[str, Recipe] = {
    "librispeech-mini": Recipe(
        title="24 minutes of read English by 195 speakers, from LibriSpeech train-clean-100 and test-other",
        url="https://raw.githubusercontent.com/resemble-ai/Resemblyzer/"
        "15d828edebe06bc72b9cabc8ef8ca5ab2cb457ce/audio_data/",
        licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        attribution="LibriSpeech (c) 2014 by Vassil Panayotov, https://www.openslr.org/12; V. Panayotov, G. Chen, D. "
        "Povey and S. Khudanpur, ICASSP 2015. Training utterances are cut to excerpts, no sample is changed.",
        manifest="librispeech_mini.csv",
    ),
    "speechocean-mini": Recipe(
        title="2.2 hours of English read by 83 adult speakers of Mandarin, from speechocean762",
        url="https://raw.githubusercontent.com/jimbozhang/speechocean762/613968e3b0b789fc33936fb5eba1973176ba7d11/",
        licence="free for commercial and non-commercial use, according to its README",
        attribution="speechocean762, https://www.openslr.org/101; J. Zhang and others, Interspeech 2021. A selection "
        "of whole utterances.",
        manifest="speechocean_mini.csv",
    ),
}
"""The corpora by name."""


def excerpts(recipe: Recipe) -> list[Excerpt]:
    """The files of a recipe."""
    text = importlib.resources.files("corpora.fetch").joinpath(recipe.manifest).read_text(encoding="utf-8")
    return [
        Excerpt(
            row["file"],
            row["source"],
            int(row["bytes"]),
            row["sha256"],
            int(row["start"]),
            int(row["samples"]),
            row["samples_sha256"],
        )
        for row in csv.DictReader(text.splitlines())
    ]
