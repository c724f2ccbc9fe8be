r"""Embeddings of whole utterances and of their segments, by a model of segments.

Embeddings of utterances are the s-vectors mu2 and the mean mu1 of z1:

.. math:: \mu_2 = \frac{\sum_n m_{z_2}^{(n)}}{N + \sigma_{z_2}^2}, \qquad
    \mu_1 = \frac{\sum_n m_{z_1}^{(n)}}{N + \sigma_{z_1}^2}, \qquad \sigma_{z_1}^2 = 1

(Hsu, Zhang & Glass, 2017, Eq. 5 and section 4.2; m are posterior means, and all prior variances of the mu are 1). The
paper uses mu1 to measure how much speaker information remains in z1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.distributions import TorchDistribution
from torch import Tensor

from corpora.loading.sequences import Prepared, collate
from dvae_pyro.errors import UserError
from evaluation.loading.splits import corpus_of, read_split
from guides.fhvae import BetaVAEGuide, FHVAEGuide, s_vectors
from inference.prediction.segments import SegmentedBatch, cut
from inference.runs import Run, pick_dtype

__all__ = ["Embeddings", "embed", "embeddings", "segment_latents", "segment_size"]

SEGMENTS_AT_ONCE = 2048


class Embeddings(NamedTuple):
    """Vectors of utterances, or of parts of utterances.

    Attributes:
        vectors: (M, L) by kind: "mu2" and "mu1" of an FHVAE, "mu1" of a beta-VAE, "ivector".
        files: name of each utterance, or of the utterance that a part is of.
        speakers: speaker of each.
    """

    vectors: Mapping[str, NDArray[np.float64]]
    files: Sequence[str]
    speakers: Sequence[str]


def embeddings(run: Run, split: str) -> Embeddings:
    """Vectors of all utterances of a split of a run's corpus; see `embed`."""
    return embed(run, read_split(run, corpus_of(run.settings, split), split))


@torch.no_grad()
def embed(run: Run, utterances: Sequence[Prepared]) -> Embeddings:
    """Vectors of whole utterances, from all full segments of each; a shorter utterance is one segment.

    Args:
        run: a run of fhvae or beta_vae.
        utterances: frames of whole utterances.

    Raises:
        UserError: the run is of another model.
    """
    guide = _guide(run)
    kinds = {"mu2": ("z2", guide.ratio)} if isinstance(guide, FHVAEGuide) else {}
    kinds |= {"mu1": ("z1", 1.0)}
    parts: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for few, segments, posteriors in _segments(run, utterances, None):
        for kind, (latent, ratio) in kinds.items():
            mean = posteriors[latent].mean
            parts[kind].append(s_vectors(mean, segments.row.to(mean.device), len(few), ratio).double().cpu())
    vectors = {kind: torch.cat(of_kind).numpy() for kind, of_kind in parts.items()}
    return Embeddings(vectors, [u.file for u in utterances], [u.speaker for u in utterances])


@torch.no_grad()
def segment_latents(run: Run, utterances: Sequence[Prepared], hop: int | None = None) -> dict[str, list[Tensor]]:
    """Mean and log-variance of the latents of all full segments, one of which begins every `hop` frames.

    Args:
        run: a run of fhvae or beta_vae.
        utterances: frames of whole utterances; a shorter utterance is one segment.
        hop: frames from one segment to the next; None is the length of a segment.

    Returns:
        For "z1" (and "z2") [mean; log-variance] of each utterance's segments, (K, 2L), float32 on the CPU.

    Raises:
        UserError: the run is of another model.
    """
    latents: dict[str, list[Tensor]] = {}
    for few, segments, posteriors in _segments(run, utterances, hop):
        for kind, q in posteriors.items():
            both = torch.cat([q.mean, q.variance.log()], -1).float().cpu()
            latents.setdefault(kind, []).extend(both[segments.row == n] for n in range(len(few)))
    return latents


def segment_size(run: Run) -> int:
    """Frames of a segment of a run's model.

    Raises:
        UserError: the model is not one of segments.
    """
    if run.model.segment is None:
        raise UserError(
            f"{run.path} is a run of model '{run.settings.model.name}', which has no latents of segments. Give a run "
            "of fhvae or beta_vae: python -m inference.svi --model fhvae"
        )
    return int(run.model.segment)


def _guide(run: Run) -> FHVAEGuide | BetaVAEGuide:
    segment_size(run)
    return cast(FHVAEGuide | BetaVAEGuide, run.guide)


def _segments(
    run: Run, utterances: Sequence[Prepared], hop: int | None
) -> Iterator[tuple[list[Prepared], SegmentedBatch, dict[str, TorchDistribution]]]:
    """Some utterances at a time, their segments, and the posteriors of the segments' latents."""
    guide, size = _guide(run), segment_size(run)
    for few in _grouped(utterances, SEGMENTS_AT_ONCE * (hop or size)):
        batch = collate(few)
        segments = cut(batch.x, batch.lengths, size, hop=hop, full=True)
        x = segments.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
        yield few, segments, guide.posteriors(x, segments.lengths)


def _grouped(utterances: Sequence[Prepared], frames: int) -> Iterator[list[Prepared]]:
    """Consecutive utterances with at most `frames` padded frames together, or a single longer one."""
    group: list[Prepared] = []
    for utterance in utterances:
        longest = max(len(u.x) for u in [*group, utterance])
        if group and longest * (len(group) + 1) > frames:
            yield group
            group = []
        group.append(utterance)
    if group:
        yield group
