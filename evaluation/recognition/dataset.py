"""Data of `evaluation.recognition`: utterances with transcripts and domains, and the features of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from corpora.loading.sequences import Prepared
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError
from evaluation.disentanglement.embeddings import segment_latents
from evaluation.loading.splits import read_split
from evaluation.reporting.command_line import say
from inference.runs import Run

__all__ = ["ALL", "FeatureSet", "TranscribedSplit", "features_of", "read_transcribed", "stacked", "transcript"]

ALL = "all"


class TranscribedSplit(NamedTuple):
    """Utterances of a split with a transcript and a domain.

    Attributes:
        items: frames (T, D) of each.
        transcripts: tokens of each.
        domains: domain of each.
    """

    items: list[Prepared]
    transcripts: list[list[str]]
    domains: list[str]

    def indices(self, domain: str) -> list[int]:
        """Indices of the utterances of a domain; of all utterances for `ALL`."""
        return [n for n, own in enumerate(self.domains) if domain in (own, ALL)]


class FeatureSet(NamedTuple):
    """The features of a row of the table.

    Attributes:
        domain: domain that the recogniser is trained on.
        run: run whose latents are the features; None for those of the front end.
        features: name of the latent, or of the front end.
    """

    domain: str
    run: Run | None
    features: str


def transcript(utterance: Utterance) -> list[str]:
    """Tokens of an utterance: the label ``transcript``, else the phones of ``content``, else the words of ``text``."""
    labels: Mapping[str, Any] = utterance.labels
    if "transcript" in labels:
        return [str(token) for token in labels["transcript"]]
    if "content" in labels:
        return [str(phone.name) for phone in labels["content"]]
    return str(labels.get("text", "")).split()


def stacked(x: Tensor, hop: int) -> Tensor:
    """Frames (T, D) concatenated, `hop` at a time, to (T // hop, hop D): as many vectors as there are segments.

    Example:
        >>> import torch
        >>> stacked(torch.arange(10.0).reshape(5, 2), 2).tolist()
        [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    count = max(1, len(x) // hop)
    if len(x) < hop:
        x = x[[*range(len(x)), *[len(x) - 1] * (hop - len(x))]]
    return x[: count * hop].reshape(count, -1)


def read_transcribed(run: Run, corpus: Corpus, split: str, label: str) -> TranscribedSplit:
    """Read the utterances of a split that have a transcript and a domain.

    Args:
        run: the run, whose front end is used.
        corpus: contains the split.
        split: name of the split.
        label: label that is the domain, or "speaker".

    Raises:
        UserError: no utterance has both.
    """
    items = read_split(run, corpus, split)
    utterances = {utterance.file: utterance for utterance in corpus.splits[split]}
    transcribed = TranscribedSplit([], [], [])
    for item in items:
        utterance = utterances[item.file]
        tokens = transcript(utterance)
        domain = utterance.speaker if label == "speaker" else utterance.labels.get(label)
        if tokens and domain is not None:
            transcribed.items.append(item)
            transcribed.transcripts.append(tokens)
            transcribed.domains.append(str(domain))
    count = len(transcribed.items)
    if not count:
        labels = sorted({name for utterance in utterances.values() for name in utterance.labels})
        raise UserError(
            f"no utterance of split {split} of corpus '{corpus.name}' has both a transcript (label transcript, content "
            f"or text) and the label --by {label}: their labels are {', '.join(labels) or 'none'}. Corpora with "
            "transcripts: fsdd, timit, synthetic, kaldi."
        )
    if count < len(items):
        say(f"{split}: left out {len(items) - count} of {len(items)} utterances, without transcript or {label}")
    return transcribed


def features_of(row: FeatureSet, split: TranscribedSplit, indices: Sequence[int], hop: int) -> list[Prepared]:
    """Features of some utterances for the recogniser of a row."""
    items = [split.items[n] for n in indices]
    if row.run is None:
        return [item._replace(x=stacked(item.x, hop)) for item in items]
    latents = segment_latents(row.run, items, hop)[row.features]
    return [item._replace(x=x) for item, x in zip(items, latents, strict=True)]
