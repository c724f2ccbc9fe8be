"""From a corpus to batches: frames of every utterance, cut into sequences, padded to batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from corpora.frontends.base import FrontEnd
from corpora.loading.cache import Reading, cached_readings, read
from corpora.loading.tally import Tally
from corpora.settings import DataSettings
from corpora.types import Corpus, Utterance, refusal
from dvae_pyro.errors import UserError, nearest
from dvae_pyro.progress import progress_bar

__all__ = ["Batch", "Batches", "Prepared", "by_length", "collate", "load_sequences", "load_split"]

ON_ERROR = ("error", "skip")
SHORT = ("drop", "keep")
JITTER = 0.1


class Prepared(NamedTuple):
    """One sequence of frames.

    Attributes:
        x: Features (T, D), float32.
        file: Name of its utterance.
        speaker: Name of the speaker.
        start: Index of its first frame in the (trimmed) utterance.
        whole: All frames of the utterance, of which `x` is a view; only with `movable`.
    """

    x: Tensor
    file: str
    speaker: str
    start: int
    whole: Tensor | None = None


class Batch(NamedTuple):
    """A padded batch: x (T, N, D), zero beyond each length, lengths (N,) int64, and the sequences."""

    x: Tensor
    lengths: Tensor
    items: tuple[Prepared, ...]


def load_split(
    corpus: Corpus,
    split: str,
    frontend: FrontEnd,
    settings: DataSettings,
    report: Callable[[str], None],
    *,
    cut: bool = False,
    movable: bool = False,
    progress: bool = True,
) -> list[Prepared]:
    """`load_sequences` with the settings of a run: whole utterances, or `cut` into training sequences."""
    return load_sequences(
        corpus,
        split,
        frontend,
        sequence_frames=settings.sequence_frames if cut else None,
        short=settings.short_utterances,
        on_error=settings.on_error,
        movable=movable,
        report=report,
        progress=progress,
        cache=settings.cache,
    )


def load_sequences(
    corpus: Corpus,
    split: str,
    frontend: FrontEnd,
    *,
    sequence_frames: int | None,
    short: str = "drop",
    on_error: str = "error",
    movable: bool = False,
    report: Callable[[str], None] = lambda line: None,
    progress: bool = False,
    cache: str | None = None,
) -> list[Prepared]:
    """Read one split of a corpus.

    Features are computed for the whole (trimmed) utterance and cut into consecutive blocks; the incomplete rest of an
    utterance is dropped. An utterance shorter than a block is omitted, or kept as a shorter sequence, which batches
    pad and models mask.

    Args:
        corpus: The corpus.
        split: The split to read.
        frontend: The front end.
        sequence_frames: Frames per sequence; None gives whole utterances.
        short: ``"drop"`` or ``"keep"`` utterances shorter than that.
        on_error: ``"error"`` stops at the first broken file, ``"skip"`` omits it.
        movable: Whether each sequence keeps all frames of its utterance (`Prepared.whole`).
        report: Called with each line about the data.
        progress: Whether to show a progress bar on standard error.
        cache: Folder for features (`corpora.loading.cache`), from which they are memory-mapped; None computes them and
            holds them in memory.

    Raises:
        UserError: A file is broken (unless skipped), or nothing is left.
    """
    if on_error not in ON_ERROR:
        raise UserError(f"data.on_error: got {on_error!r}, expected 'error' or 'skip'.{nearest(on_error, ON_ERROR)}")
    if short not in SHORT:
        raise UserError(f"data.short_utterances: got {short!r}, expected 'drop' or 'keep'.{nearest(short, SHORT)}")
    if sequence_frames is not None and sequence_frames < 1:
        raise UserError(
            f"data.sequence_frames: got {sequence_frames}, expected 1 or more, or null for whole utterances."
        )
    utterances = corpus.splits.get(split, [])
    tally = Tally(split, len(utterances), frontend.rate)
    sequences: list[Prepared] = []

    def checked(utterance: Utterance, reading: Reading) -> Reading:
        if reading.fault and on_error == "error":
            raise refusal(f"{utterance.file} of corpus {corpus.name} {corpus.root}", reading.fault)
        return reading

    def computed() -> Iterator[Reading]:
        with progress_bar(f"reading {split}", len(utterances), "file", shown=progress, leave=False) as bar:
            for utterance in utterances:
                yield checked(utterance, read(utterance, frontend))
                bar.update()

    readings: Iterable[Reading] = computed()
    if cache is not None:
        readings = cached_readings(
            Path(cache).expanduser(), f"{corpus.name}-{split}", utterances, frontend, readings, report
        )
    for utterance, reading in zip(utterances, readings, strict=True):
        if checked(utterance, reading).fault:
            tally.broken.append(f"{utterance.file} ({reading.fault})")
            continue
        tally.count(utterance.file, reading)
        features = reading.features
        length = len(features) if sequence_frames is None else sequence_frames
        if len(features) < length:
            tally.short.append(f"{utterance.file} ({len(features)})")
            length = len(features) if short == "keep" else length
        whole = torch.from_numpy(features) if movable else None
        for start in range(0, len(features) - length + 1, length):
            block = features[start : start + length]
            # A copy, so that a sequence sent to another process does not include its whole utterance.
            x = torch.from_numpy(block.copy() if cache is None and not movable else block)
            sequences.append(Prepared(x, utterance.file, utterance.speaker, start, whole))
    if corpus.layout and split == next(iter(corpus.splits)):
        report(corpus.layout)
    for line in corpus.notes.get(split, []):
        report(f"{split}: {line}")
    for line in tally.lines(sequence_frames, short):
        report(line)
    if not sequences:
        raise UserError(tally.nothing_left(corpus, sequence_frames))
    frames = sum(len(item.x) for item in sequences)
    speakers = {item.speaker for item in sequences}
    by_speakers = f", {len(speakers)} speakers" if speakers != {""} else ""
    report(f"{split}: {len(sequences)} sequences, {frames} frames{by_speakers}")
    return sequences


def collate(items: Sequence[Prepared]) -> Batch:
    """Combine sequences to a batch, padded with zeros.

    Example:
        >>> a, b = (Prepared(torch.ones(t, 2), "f", "s", 0) for t in (3, 1))
        >>> batch = collate([a, b])
        >>> batch.x[:, :, 0].tolist(), batch.lengths.tolist()
        ([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]], [3, 1])
    """
    x = pad_sequence([item.x for item in items])
    return Batch(x, torch.tensor([len(item.x) for item in items]), tuple(items))


class _Frames(Protocol):
    @property
    def x(self) -> Tensor: ...


_Item = TypeVar("_Item", bound=_Frames)


def by_length(items: Iterable[_Item], frames_at_once: int) -> Iterator[list[_Item]]:
    """Group items of similar length into batches of at most `frames_at_once` padded frames, or of a single item.

    Example:
        >>> items = [Prepared(torch.ones(t, 2), str(t), "s", 0) for t in (3, 1, 2)]
        >>> [[item.file for item in batch] for batch in by_length(items, 4)]
        [['1', '2'], ['3']]
    """
    batch: list[_Item] = []
    for item in sorted(items, key=lambda item: len(item.x)):
        if batch and (len(batch) + 1) * len(item.x) > frames_at_once:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


class Batches:
    """The batches of each epoch: a pure function of seed and epoch, for exact resuming.

    Args:
        sequences: The sequences; each is in exactly one batch of an epoch.
        batch_size: Sequences per batch; one batch may hold fewer.
        seed: The seed of the order.
        shuffle: Whether to draw a new order for every epoch; otherwise the order is that of `sequences`.
        bucket: Whether to batch sequences of similar length, which reduces padding.
    """

    def __init__(
        self,
        sequences: Sequence[Prepared],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        bucket: bool = True,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"train.batch_size: got {batch_size}, expected 1 or more.")
        self.lengths = torch.tensor([len(item.x) for item in sequences], dtype=torch.float64)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.bucket = bucket

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Indices of the sequences of each batch."""
        count = len(self.lengths)
        digest = hashlib.sha256(f"{self.seed}/{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        if self.bucket:
            # Lengths are perturbed slightly, so that the same sequences do not share a batch in every epoch.
            blur = JITTER * torch.rand(count, generator=generator, dtype=torch.float64) if self.shuffle else 0.0
            order = order[torch.argsort(self.lengths[order] * (1 + blur), stable=True)]
        batches = [order[start : start + self.batch_size].tolist() for start in range(0, count, self.batch_size)]
        if self.shuffle and self.bucket:
            batches = [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
        return batches
