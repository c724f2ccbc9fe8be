r"""Vectors of whole utterances from a run of a model of segments, and of the segments themselves. Of utterances:
s-vectors mu2, and the mean mu1 of what z1 holds.

.. math:: \mu_2 = \frac{\sum_n m_{z_2}^{(n)}}{N + \sigma_{z_2}^2}, \qquad
    \mu_1 = \frac{\sum_n m_{z_1}^{(n)}}{N + \sigma_{z_1}^2}, \qquad \sigma_{z_1}^2 = 1

(Hsu, Zhang & Glass, 2017, Eq. 5 and section 4.2; m are posterior means, and all prior variances of the mu are 1). The
paper's mu1 tells how much of the speaker is left where it should not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import Prepared, collate, load_split
from corpora.registry import open_corpus
from dvae_pyro.errors import UserError
from guides.fhvae import BetaVAEGuide, FHVAEGuide, s_vectors
from inference.prediction.segments import SegmentedBatch, cut
from inference.runs import pick_dtype

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution

    from inference.runs import Run

__all__ = ["Embeddings", "embed", "embeddings", "segment_latents"]

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


def embeddings(run: Run, split: str, report: Callable[[str], None] = lambda line: None) -> Embeddings:
    """The vectors of all utterances of a split of a run's corpus.

    Args:
        run: a run of fhvae or beta_vae.
        split: which part of its corpus.
        report: is told, a line at a time, what happened to the data.

    Raises:
        UserError: for a run of another model.
    """
    data = run.settings.data
    frontend = open_frontend(data, run.settings.model.bins)
    return embed(run, load_split(open_corpus(data, data.seed, [split]), split, frontend, data, report))


@torch.no_grad()
def embed(run: Run, utterances: Sequence[Prepared]) -> Embeddings:
    """The vectors of whole utterances, from all their full segments; one shorter than a segment counts as one.

    Raises:
        UserError: for a run of another model.
    """
    guide = _guide(run)
    kinds = {"mu2": ("z2", guide.ratio_alone)} if isinstance(guide, FHVAEGuide) else {}
    kinds |= {"mu1": ("z1", 1.0)}
    parts: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for few, segments, posteriors in _segments(run, utterances, None):
        for kind, (latent, ratio) in kinds.items():
            mean = posteriors[latent].mean
            vectors = s_vectors(mean, segments.row.to(mean.device), len(few), ratio)
            parts[kind].append(vectors.double().cpu())
    found = {kind: torch.cat(of_kind).numpy() for kind, of_kind in parts.items()}
    return Embeddings(found, [u.file for u in utterances], [u.speaker for u in utterances])


@torch.no_grad()
def segment_latents(run: Run, utterances: Sequence[Prepared], hop: int | None = None) -> dict[str, list[Tensor]]:
    """Mean and log-variance of the latents of all full segments, one of which begins every `hop` frames.

    Args:
        run: a run of fhvae or beta_vae.
        utterances: whole utterances; one shorter than a segment is one segment.
        hop: null is the length of a segment.

    Returns:
        For "z1" (and "z2") [mean; log-variance] of each utterance's segments, (K, 2L), float32 on the CPU.

    Raises:
        UserError: for a run of another model.
    """
    found: dict[str, list[Tensor]] = {}
    for few, segments, posteriors in _segments(run, utterances, hop):
        for kind, q in posteriors.items():
            both = torch.cat([q.mean, q.variance.log()], -1).float().cpu()
            found.setdefault(kind, []).extend(both[segments.row == n] for n in range(len(few)))
    return found


def _guide(run: Run) -> FHVAEGuide | BetaVAEGuide:
    guide: object = run.guide
    if not isinstance(guide, FHVAEGuide | BetaVAEGuide):
        raise UserError(
            f"{run.path} is a run of model '{run.settings.model.name}', which has no latents of segments. Train one: "
            "python -m inference.svi --model fhvae"
        )
    return guide


def _segments(
    run: Run, utterances: Sequence[Prepared], hop: int | None
) -> Iterator[tuple[list[Prepared], SegmentedBatch, dict[str, TorchDistribution]]]:
    """A few utterances at a time, their segments, and the posteriors of these."""
    guide, size = _guide(run), cast(int, run.model.segment)
    for few in _grouped(utterances, SEGMENTS_AT_ONCE * (hop or size)):
        batch = collate(few)
        segments = cut(batch.x, batch.lengths, size, hop=hop, full=True)
        x = segments.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
        yield few, segments, guide.posteriors(x, segments.lengths)


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
