"""Corpus, utterances and sequences of a run, read with the run's settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import Batch, Batches, Prepared, collate, load_split
from corpora.registry import open_corpus
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError, nearest
from evaluation.reporting.command_line import say

if TYPE_CHECKING:
    from inference.runs import Run
    from inference.settings.tree import Settings

__all__ = ["batches", "corpus_of", "find_utterance", "read_sequences", "read_split", "read_utterances", "spread"]

T = TypeVar("T")

BATCH = 16
"""Sequences that go through the model together."""


def corpus_of(settings: Settings, *splits: str) -> Corpus:
    """The corpus that settings name, with these splits; a split may be named more than once."""
    return open_corpus(settings.data, settings.data.seed, needed=list(dict.fromkeys(splits)))


def read_split(run: Run, corpus: Corpus, split: str, *, cut: bool = False) -> list[Prepared]:
    """Frames of the utterances of a split, from the front end of a run.

    Args:
        run: The run, whose settings select the front end.
        corpus: Contains the split.
        split: Name of the split.
        cut: Cut utterances into sequences as for training; otherwise each whole utterance is one sequence.

    Raises:
        UserError: A file is broken (unless data.on_error=skip), or nothing is left.
    """
    data = run.settings.data
    return load_split(corpus, split, open_frontend(data, run.settings.model.bins), data, say, cut=cut)


def read_sequences(run: Run, split: str, limit: int) -> list[Prepared]:
    """At most `limit` sequences of a split, cut as for training and spread evenly over the split."""
    return spread(read_split(run, corpus_of(run.settings, split), split, cut=True), limit)


def read_utterances(run: Run, split: str, limit: int | None) -> list[Prepared]:
    """Frames of whole utterances, at most `limit` and spread evenly over the split; None reads all."""
    data = run.settings.data
    corpus = corpus_of(run.settings, split)
    utterances = corpus.splits[split]
    chosen = utterances if limit is None else spread(utterances, limit)
    if len(chosen) < len(utterances):
        data = replace(data, cache=None)  # a cache file for each selection would fill the folder
    frontend = open_frontend(data, run.settings.model.bins)
    return load_split(replace(corpus, splits={split: chosen}), split, frontend, data, say)


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` items at equal distances.

    Example:
        >>> spread("abcdefg", 3)
        ['a', 'c', 'e']
    """
    count = min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def batches(sequences: Sequence[Prepared]) -> Iterator[tuple[list[int], Batch]]:
    """Batches of sequences of similar length, each with the indices of its sequences."""
    for indices in Batches(sequences, BATCH, shuffle=False).epoch(0):
        yield indices, collate([sequences[i] for i in indices])


def find_utterance(utterances: Sequence[Utterance], name: str, option: str, source: str) -> Utterance:
    """The utterance with a name.

    Args:
        utterances: The candidates.
        name: Its file name in the corpus, or a unique end of it.
        option: Command-line option that the name comes from, for messages.
        source: What was searched, for messages.

    Raises:
        UserError: No utterance has this name, or several have.
    """
    exact = [u for u in utterances if u.file == name]
    matches = exact or [u for u in utterances if PurePosixPath(u.file).stem == name or u.file.endswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        candidates = ", ".join(u.file for u in matches[:5])
        raise UserError(f"{option} {name} matches several files: {candidates}. Give more of the name.")
    hint = nearest(name, [u.file for u in utterances]) or f" The first file is '{utterances[0].file}'."
    raise UserError(f"{option} {name}: no such file in {source}.{hint}")
