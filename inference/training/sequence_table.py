r"""Training of models with sequence-level latents: the table of mu2, s-vectors of utterances outside the table, and
hierarchical sampling.

Hierarchical sampling (Hsu & Glass, "Scalable factorized hierarchical variational autoencoder training", 2018): draw K
of the M sequences, recompute their rows of the table in closed form with the present encoder, train on their segments,
and draw the next K. A segment is then discriminated among K sequences, not M. The optimiser's state of these rows is
reset.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from corpora.loading.sequences import Batches, Prepared
from dvae_pyro.errors import UserError
from guides.fhvae import FHVAEGuide, s_vectors
from inference.training.optimisers import forget_rows
from inference.training.reading.batches import Data, UtteranceIndex
from models.core.grouping import SequenceIndex

if TYPE_CHECKING:
    from inference.checkpoints.state import TrainState
    from inference.settings.tree import DiscriminativeSettings, Settings
    from inference.training.job import Job

__all__ = ["Blocks", "adopt_table", "is_sparse", "slow_table", "training_rows", "validation_rows"]


class Block(NamedTuple):
    """The batches between two draws of sequences.

    Attributes:
        rows: indices of the sequences, sorted.
        batches: indices of the segments of each batch.
    """

    rows: Tensor
    batches: list[list[int]]


class Blocks(Batches):
    """Batches of hierarchical sampling: K sequences at a time; a pure function of seed and epoch.

    Args:
        sequences: the segments.
        batch_size: segments per batch.
        seed: the seed of the order.
        members: the utterance of each segment.
        at_once: K.
    """

    def __init__(
        self, sequences: Sequence[Prepared], batch_size: int, seed: int, members: UtteranceIndex, at_once: int
    ) -> None:
        super().__init__(sequences, batch_size, seed)
        self.members = members
        self.at_once = at_once
        self.blocks = functools.lru_cache(maxsize=1)(self._blocks)

    def __len__(self) -> int:
        return len(self.epoch(0))

    def epoch(self, epoch: int) -> list[list[int]]:
        return [batch for block in self.blocks(epoch) for batch in block.batches]

    def first_of(self, epoch: int, batch: int) -> tuple[Block, bool]:
        """The block of a batch in an epoch, and whether the batch is the first one of the block."""
        for block in self.blocks(epoch):
            if batch < len(block.batches):
                return block, batch == 0
            batch -= len(block.batches)
        raise IndexError(f"epoch {epoch} has no such batch")

    def _blocks(self, epoch: int) -> list[Block]:
        digest = hashlib.sha256(f"{self.seed}/{epoch}/blocks".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        by_row = torch.argsort(self.members.row, stable=True).split(self.members.counts.tolist())
        order = torch.randperm(len(by_row), generator=generator)
        blocks = []
        for rows in order.split(self.at_once):
            segments = torch.cat([by_row[row] for row in rows.tolist()])
            shuffled = segments[torch.randperm(len(segments), generator=generator)]
            blocks.append(Block(rows.sort().values, [b.tolist() for b in shuffled.split(self.batch_size)]))
        return blocks


def adopt_table(guide: FHVAEGuide, settings: Settings, members: UtteranceIndex) -> None:
    """Create the guide's table with a row for every training utterance, or check that an existing one matches them.

    Raises:
        UserError: for a table of other utterances.
    """
    names = members.names()
    if guide.table is None:
        settings.guide.sequences = len(members.files)
        guide.make_table(settings.guide.sequences)
        guide.files.copy_(names)
    elif not torch.equal(guide.files.cpu(), names):
        raise UserError(
            f"the run's table of mu2 has rows for {len(guide.files)} utterances, which differ from the {len(names)} "
            "utterances of these training data. Resume with the data that the run was trained on, or train a new run."
        )
    cast(Any, guide.table).sparse = is_sparse(settings.train.discriminative)


def slow_table(settings: Settings, members: UtteranceIndex, steps: int) -> str:
    """A warning for a table whose rows cannot move far from their random initialisation; empty if they can.

    Adam moves a row by about the learning rate for each batch that has a segment of it. In experiments a total of half
    the prior's standard deviation was enough, a quarter was not.
    """
    updates = min(steps, steps * settings.train.batch_size / len(members.files))
    reach = updates * settings.optim.lr
    if settings.train.discriminative.sequences is not None or reach >= 0.5:
        return ""
    return (
        f"warning: a row of the table is updated about {updates:.0f} times in the whole training and moves by about "
        f"{reach:.2g}, while the prior's standard deviation is 1: it stays near its random initialisation, and z2 "
        "learns little. Train for longer, or compute the rows in closed form (Eq. 5): "
        "train.discriminative.sequences=5000."
    )


def is_sparse(discriminative: DiscriminativeSettings) -> bool:
    """Whether a batch has gradients only for some rows of the table: those of its sequences and the candidates."""
    return discriminative.alpha == 0.0 or discriminative.sequences is not None


def training_rows(job: Job, state: TrainState, index: Sequence[int]) -> SequenceIndex | None:
    """The `SequenceIndex` of the next training batch; at the start of a block of hierarchical sampling, the block's
    rows of the table are recomputed.
    """
    if not job.model.hierarchical:
        return None
    assert isinstance(job.train, Data)  # streams are refused
    batches, members, active = job.train.batches, job.train.members, None
    if isinstance(batches, Blocks):
        block, first = batches.first_of(state.epoch, state.batch)
        active = block.rows
        if first:
            _refresh(job, job.train.of_epoch(state.epoch), block)
    return members.rows(index, trained=True, active=active)


def validation_rows(job: Job, data: Data) -> dict[str, Tensor] | None:
    """The s-vectors of another split's utterances in closed form, (M, L), as arguments of `UtteranceIndex.rows`."""
    if not job.model.hierarchical:
        return None
    guide, members = cast(FHVAEGuide, job.guide), data.members
    means, row = _means(job, data, data.batches.epoch(0))
    return {"values": s_vectors(means, row, len(members.files), guide.ratio)}


def _refresh(job: Job, data: Data, block: Block) -> None:
    guide, members = cast(FHVAEGuide, job.guide), data.members
    means, row = _means(job, data, block.batches)
    values = s_vectors(means, row, len(members.files), guide.ratio)
    table: Any = guide.table
    rows = block.rows.to(values.device)
    with torch.no_grad():
        table.weight[rows] = values[rows]
    forget_rows(job.optimizer, table, rows)


@torch.no_grad()
def _means(job: Job, data: Data, batches: Iterable[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The inputs of the closed form (Eq. 5): the mean of z2 of each segment of the batches (K, L), and its row (K,)."""
    guide = cast(FHVAEGuide, job.guide)
    means, rows = [], []
    for number, index in enumerate(batches):
        if number % job.world.size == job.world.rank:
            batch = data.batch(index)
            means.append(guide.z2_mean(batch.x.to(device=job.device, dtype=job.dtype), batch.lengths))
        else:
            means.append(torch.zeros(len(index), guide.z2_dim, device=job.device, dtype=job.dtype))
        rows.append(data.members.row[torch.tensor(index)])
    return job.world.total(torch.cat(means)), torch.cat(rows).to(job.device)
