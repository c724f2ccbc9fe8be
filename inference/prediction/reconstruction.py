"""Reconstruction: the guide infers latents of data, and the model decodes them.

For a model of segments, longer sequences are cut into segments, the last of which may be shorter, and the decoded
segments are joined: consecutive, or overlapping, where each frame is the mean over the segments that contain it.
Latents are then those of the segments, in the order of `inference.prediction.segments.cut`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from guides.core.guide import Guide
from inference.handlers.free_bits import unweighted
from inference.handlers.free_running import free_running
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Terms, terms
from inference.particles.log_weights import samples
from inference.prediction.segments import SegmentedBatch, cut
from models.core.grouping import SequenceIndex
from models.dvae import DVAE

__all__ = ["Reconstruction", "decode", "infer", "kl_by_dimension", "reconstruct"]


class Reconstruction(NamedTuple):
    """The reconstruction of a batch.

    Attributes:
        mean: the expected data (T, N, D) given the latents; for a power spectrum its variance sigma^2.
        terms: reconstruction term and KL of each latent, unweighted, per sequence; computed on consecutive segments.
        latents: the latents (T, N, L), or (N, L), by site name.
    """

    mean: Tensor
    terms: Terms
    latents: dict[str, Tensor]


@torch.no_grad()
def reconstruct(
    model: DVAE,
    guide: Guide,
    x: Tensor,
    lengths: Tensor,
    *,
    latents: str = "mean",
    mode: str = "gt",
    hop: int | None = None,
) -> Reconstruction:
    """Run the guide on data, and the model on the inferred latents.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        latents: ``"mean"`` of each conditional, or a ``"sample"``.
        mode: ``"gt"``: the model is given the true past of x; ``"gen"``: its own output.
        hop: for a model of segments, frames from one segment to the next; None for consecutive segments.

    Raises:
        ValueError: for another `latents` or `mode`.
    """
    if latents not in ("mean", "sample") or mode not in ("gt", "gen"):
        raise ValueError(f"latents='{latents}', mode='{mode}': expected mean or sample, and gt or gen")
    parts, args = _batch(model, x, lengths, None)
    guide_trace = _inferred(guide, args, latents)
    model_trace = _run(poutine.replay(model, guide_trace), args, mode)
    mean, bound_terms, drawn = _mean(model, model_trace), terms(model_trace, guide_trace), _values(guide_trace)
    if parts is not None:
        kl = {name: parts.summed(of_segment) for name, of_segment in bound_terms.kl.items()}
        mean, bound_terms = parts.joined(mean, len(x)), Terms(parts.summed(bound_terms.reconstruction), kl)
        if hop is not None and hop != model.segment:
            drawn = infer(model, guide, x, lengths, latents=latents, hop=hop)
            mean = decode(model, drawn, x, lengths, mode=mode, hop=hop)
    return Reconstruction(mean, bound_terms, drawn)


@torch.no_grad()
def infer(
    model: DVAE, guide: Guide, x: Tensor, lengths: Tensor, *, latents: str = "mean", hop: int | None = None
) -> dict[str, Tensor]:
    """Infer the latents of data, by site name; arguments as of `reconstruct`.

    The latent that the segments of a sequence share is inferred from consecutive segments for every hop, so that each
    frame counts once.
    """
    _, args = _batch(model, x, lengths, hop)
    if model.hierarchical and hop is not None and hop != model.segment:
        shared = infer(model, guide, x, lengths, latents=latents)["mu2"]
        args = (*args[:-1], args[-1]._replace(values=shared))
    return _values(_inferred(guide, args, latents))


@torch.no_grad()
def decode(
    model: DVAE,
    latents: Mapping[str, Tensor],
    x: Tensor,
    lengths: Tensor,
    *,
    mode: str = "gen",
    hop: int | None = None,
) -> Tensor:
    """The expected data (T, N, D) given latents.

    Args:
        model: the generative model.
        latents: values of all latents, (T, N, L), or (N, L), by site name, such as `infer` returns.
        x: data (T, N, D), the past that the model is given in mode ``"gt"``; in mode ``"gen"`` it is given its own
            output.
        lengths: frames of each sequence (N,), on the CPU.
        mode: ``"gt"`` or ``"gen"``.
        hop: the hop that the latents were inferred with.
    """
    parts, args = _batch(model, x, lengths, hop)
    mean = _mean(model, _run(poutine.condition(model, dict(latents)), args, mode))
    return mean if parts is None else parts.joined(mean, len(x))


@torch.no_grad()
def kl_by_dimension(
    model: DVAE, guide: Guide, x: Tensor, lengths: Tensor, *, latents: str = "mean", mode: str = "gt"
) -> dict[str, Tensor]:
    r"""The KL of each dimension of each latent, in nats, summed over frames and sequences.

    .. math:: \sum_{n, t} KL(q(z_{t,l} \mid \cdot), p(z_{t,l} \mid \cdot))

    The sum over dimensions l is the KL of `Reconstruction.terms`, summed over sequences.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        latents: what later conditionals are given: ``"mean"`` or ``"sample"``.
        mode: ``"gt"`` or ``"gen"``.

    Returns:
        (L,) by site, of the latents that are diagonal Gaussians in model and guide.
    """
    _, args = _batch(model, x, lengths, None)
    guide_trace = _inferred(guide, args, latents)
    model_trace = _run(poutine.replay(model, guide_trace), args, mode)
    drawn, kl = samples(guide_trace), {}
    for name, site in samples(model_trace).items():
        if name in drawn and not site["is_observed"]:
            (q, inside), (p, _) = _gaussian(drawn[name]["fn"]), _gaussian(site["fn"])
            if q is not None and p is not None:
                divergence = kl_divergence(q, p)
                if isinstance(inside, Tensor):
                    divergence = torch.where(inside.bool()[..., None], divergence, 0.0)
                kl[name] = divergence.flatten(0, -2).sum(0)
    return kl


def _gaussian(conditional: Any) -> tuple[Normal | None, Any]:
    """A conditional as independent Gaussians, None if it is not, and the mask of its frames."""
    fn, mask = unweighted(conditional), None
    if isinstance(fn, MaskedDistribution):
        fn, mask = unweighted(fn.base_dist), fn._mask
    if isinstance(fn, Independent) and fn.reinterpreted_batch_ndims == 1 and isinstance(fn.base_dist, Normal):
        return fn.base_dist, mask
    return None, mask


def _batch(model: DVAE, x: Tensor, lengths: Tensor, hop: int | None) -> tuple[SegmentedBatch | None, tuple[Any, ...]]:
    """The arguments for model and guide, and the segments if the model takes segments."""
    if model.segment is None:
        return None, (x, lengths)
    parts = cut(x, lengths, model.segment, hop=hop)
    rows = (SequenceIndex.whole(parts.row),) if model.hierarchical else ()
    return parts, (parts.x, parts.lengths, "auto", *rows)


def _inferred(guide: Guide, args: tuple[Any, ...], latents: str) -> Any:
    with mean_latents() if latents == "mean" else ExitStack(), pyro.validation_enabled(False):
        return poutine.trace(guide).get_trace(*args)


def _run(program: Any, args: tuple[Any, ...], mode: str) -> Any:
    # the check of every distribution, in free running of every frame, would wait for the GPU
    with free_running() if mode == "gen" else ExitStack(), pyro.validation_enabled(False):
        return poutine.trace(program).get_trace(*args)


def _values(guide_trace: Any) -> dict[str, Tensor]:
    sites = {name: site for name, site in guide_trace.nodes.items() if site["type"] == "sample"}
    values = {name: site["value"] for name, site in sites.items() if not site_is_subsample(site)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _mean(model: DVAE, model_trace: Any) -> Tensor:
    mean: Tensor = model.scaling.inverse(model_trace.nodes["x"]["fn"].mean)
    return mean
