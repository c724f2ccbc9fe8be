"""What the recognisers of `evaluation.recognition` hear, and what is said: utterances with their transcripts and
domains, and the features of each row of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import say

if TYPE_CHECKING:
    from torch import Tensor

    from corpora.loading.sequences import Prepared
    from corpora.types import Corpus, Utterance
    from inference.runs import Run

__all__ = ["ALL", "Row", "Spoken", "features_of", "read_split", "stacked", "transcript"]

ALL = "all"


class Spoken(NamedTuple):
    """Utterances of a split that can be recognised.

    Attributes:
        items: their frames (T, D).
        said: their transcripts.
        domains: the domain of each.
    """

    items: list[Prepared]
    said: list[list[str]]
    domains: list[str]

    def of(self, domain: str) -> list[int]:
        """Which ones are of a domain; `ALL` is every one."""
        return [n for n, found in enumerate(self.domains) if domain in (found, ALL)]


class Row(NamedTuple):
    """One recogniser of the table: the domain it is trained in, whose features it hears, and which."""

    trained: str
    run: Run | None
    features: str


def transcript(utterance: Utterance) -> list[str]:
    """What is said: the label ``transcript``, else the phones of ``content``, else the words of ``text``."""
    labels: Mapping[str, Any] = utterance.labels
    if "transcript" in labels:
        return [str(token) for token in labels["transcript"]]
    if "content" in labels:
        return [str(phone.name) for phone in labels["content"]]
    return str(labels.get("text", "")).split()


def stacked(x: Tensor, hop: int) -> Tensor:
    """Frames (T, D) side by side, `hop` at a time, (T // hop, hop D): as many features as segments give, nothing lost.

    Example:
        >>> import torch
        >>> stacked(torch.arange(10.0).reshape(5, 2), 2).tolist()
        [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    count = max(1, len(x) // hop)
    if len(x) < hop:
        x = x[[*range(len(x)), *[len(x) - 1] * (hop - len(x))]]
    return x[: count * hop].reshape(count, -1)


def read_split(run: Run, corpus: Corpus, split: str, by: str) -> Spoken:
    """The utterances of a split that have a transcript and a domain.

    Raises:
        UserError: no utterance has.
    """
    from corpora.frontends.registry import open_frontend
    from corpora.loading.sequences import load_split

    data = run.settings.data
    frontend = open_frontend(data, run.settings.model.bins)
    items = load_split(corpus, split, frontend, data, say)
    utterances = {utterance.file: utterance for utterance in corpus.splits[split]}
    found = Spoken([], [], [])
    for item in items:
        utterance = utterances[item.file]
        said = transcript(utterance)
        domain = utterance.speaker if by == "speaker" else utterance.labels.get(by)
        if said and domain is not None:
            found.items.append(item)
            found.said.append(said)
            found.domains.append(str(domain))
    if not found.items:
        labels = sorted({label for utterance in utterances.values() for label in utterance.labels})
        raise UserError(
            f"no utterance of split {split} of corpus '{corpus.name}' has both a transcript (label transcript, content "
            f"or text) and the label --by {by}: their labels are {', '.join(labels) or 'none'}. Corpora with "
            "transcripts: fsdd, timit, synthetic, kaldi."
        )
    if len(found.items) < len(items):
        say(f"{split}: left out {len(items) - len(found.items)} of {len(items)} utterances, without transcript or {by}")
    return found


def features_of(row: Row, spoken: Spoken, chosen: Sequence[int], hop: int) -> list[Prepared]:
    """What the recogniser of a row hears of some utterances."""
    from evaluation.disentanglement.embeddings import segment_latents

    items = [spoken.items[n] for n in chosen]
    if row.run is None:
        return [item._replace(x=stacked(item.x, hop)) for item in items]
    latents = segment_latents(row.run, items, hop)[row.features]
    return [item._replace(x=x) for item, x in zip(items, latents, strict=True)]
