r"""Vectors of whole utterances from a run of a model of segments: s-vectors mu2, and the mean mu1 of what z1 holds.

.. math:: \mu_2 = \frac{\sum_n m_{z_2}^{(n)}}{N + \sigma_{z_2}^2}, \qquad
    \mu_1 = \frac{\sum_n m_{z_1}^{(n)}}{N + \sigma_{z_1}^2}, \qquad \sigma_{z_1}^2 = 1

(Hsu, Zhang & Glass, 2017, Eq. 5 and section 4.2; m are posterior means, and all prior variances of the mu are 1). The
paper's mu1 tells how much of the speaker is left where it should not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.corpus import Corpus, open_corpus
from corpora.frontends import open_frontend
from corpora.sequences import Prepared, collate, load_sequences
from guides.fhvae import BetaVAEGuide, FHVAEGuide, s_vectors
from inference.errors import UserError
from inference.runs import pick_dtype
from inference.segments import cut

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = ["Embeddings", "embed", "embeddings"]

SEGMENTS_AT_ONCE = 2048


class Embeddings(NamedTuple):
    """A vector of each kind for every utterance.

    Attributes:
        vectors: "mu2" (M, L), "mu1" (M, L); of a beta-VAE mu1 alone.
        files: the utterances' names, of a part that of the whole.
        speakers: who speaks.
    """

    vectors: dict[str, NDArray[np.float64]]
    files: list[str]
    speakers: list[str]


def embeddings(
    run: Run,
    split: str,
    *,
    parts: int = 1,
    corpus: Corpus | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> Embeddings:
    """The vectors of all utterances of a split.

    Args:
        run: a run of fhvae or beta_vae.
        split: which part of its corpus.
        parts: cut each utterance into so many equal parts, each with vectors of its own.
        corpus: another corpus, open already.
        report: is told, a line at a time, what happened to the data.
        progress: draw a progress bar on standard error.

    Raises:
        UserError: for a run of another model.
    """
    data = run.settings.data
    found = open_corpus(data, data.seed, [split]) if corpus is None else corpus
    utterances = load_sequences(
        found,
        split,
        open_frontend(data, run.settings.model.bins),
        sequence_frames=None,
        on_error=data.on_error,
        cache=data.cache,
        report=report,
        progress=progress,
    )
    return embed(run, [part for utterance in utterances for part in _parts(utterance, parts)])


@torch.no_grad()
def embed(run: Run, utterances: Sequence[Prepared]) -> Embeddings:
    """The vectors of whole utterances, from all their full segments; one shorter than a segment counts as one.

    Raises:
        UserError: for a run of another model.
    """
    guide: Any = run.guide
    if not isinstance(guide, FHVAEGuide | BetaVAEGuide) or run.model.segment is None:
        raise UserError(
            f"{run.path} is a run of model '{run.settings.model.name}', which has no latents of segments. Train one: "
            "python -m inference.svi --model fhvae"
        )
    kinds: dict[str, tuple[Any, float]] = {"mu1": (guide.z1_mean, 1.0)}
    if isinstance(guide, FHVAEGuide):
        kinds = {"mu2": (guide.z2_mean, guide.ratio_alone), **kinds}
    parts: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for few in _grouped(utterances, SEGMENTS_AT_ONCE * run.model.segment):
        batch = collate(few)
        segments = cut(batch.x, batch.lengths, run.model.segment, full=True)
        x = segments.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
        row = segments.row.to(x.device)
        for kind, (mean, ratio) in kinds.items():
            parts[kind].append(s_vectors(mean(x, segments.lengths), row, len(few), ratio).double().cpu())
    vectors = {kind: torch.cat(of_kind).numpy() for kind, of_kind in parts.items()}
    return Embeddings(vectors, [u.file for u in utterances], [u.speaker for u in utterances])


def _parts(utterance: Prepared, parts: int) -> list[Prepared]:
    pieces = utterance.x.tensor_split(min(parts, len(utterance.x)))
    return [utterance._replace(x=piece) for piece in pieces]


def _grouped(utterances: Sequence[Prepared], frames: int) -> Iterator[list[Prepared]]:
    """In their order, no more padded frames together than these, but for one that has more."""
    group: list[Prepared] = []
    for utterance in utterances:
        longest = max(len(u.x) for u in [*group, utterance])
        if group and longest * (len(group) + 1) > frames:
            yield group
            group = []
        group.append(utterance)
    if group:
        yield group
