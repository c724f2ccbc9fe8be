"""Encode and decode: what a model makes of data through the latents that its guide infers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from guides.guide import Guide
from inference.handlers import free_running, mean_latents
from inference.objectives import Terms, terms
from inference.segments import cut
from models.dvae import DVAE
from models.rows import Rows

__all__ = ["Reconstruction", "decode", "reconstruct"]


class Reconstruction(NamedTuple):
    """What came out of a batch.

    Attributes:
        mean: the expected data (T, N, D) given the latents; of a power spectrum its variance sigma^2.
        terms: reconstruction term and KL of each latent, unscaled, per sequence.
        latents: the latents (T, N, L), or (N, L), by site name.
    """

    mean: Tensor
    terms: Terms
    latents: dict[str, Tensor]


@torch.no_grad()
def reconstruct(
    model: DVAE, guide: Guide, x: Tensor, lengths: Tensor, *, latents: str = "mean", mode: str = "gt"
) -> Reconstruction:
    """Run the guide on data, and the model on the latents that it gives.

    A model of segments gets longer sequences cut into consecutive ones, the last perhaps shorter, and what it makes of
    them is put together; the s-vector of a sequence comes from all of its segments. Latents are then those of the
    segments.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        latents: ``"mean"`` of each conditional, or a ``"sample"``.
        mode: ``"gt"``, the model sees the true past of x, or ``"gen"``, its own output.

    Raises:
        ValueError: for another `latents` or `mode`.
    """
    if latents not in ("mean", "sample") or mode not in ("gt", "gen"):
        raise ValueError(f"latents='{latents}', mode='{mode}': expected mean or sample, and gt or gen")
    if model.segment is None or int(lengths.max()) <= model.segment:
        return _decoded(model, guide, (x, lengths), latents, mode)
    parts = cut(x, lengths, model.segment)
    rows = (Rows.whole(parts.row),) if model.hierarchical else ()
    made = _decoded(model, guide, (parts.x, parts.lengths, "auto", *rows), latents, mode)
    kl = {name: parts.summed(of_segment) for name, of_segment in made.terms.kl.items()}
    found = Terms(parts.summed(made.terms.reconstruction), kl)
    return Reconstruction(parts.joined(made.mean, len(x)), found, made.latents)


def _decoded(model: DVAE, guide: Guide, args: tuple[Any, ...], latents: str, mode: str) -> Reconstruction:
    with mean_latents() if latents == "mean" else ExitStack():
        guide_trace = poutine.trace(guide).get_trace(*args)
    with free_running() if mode == "gen" else ExitStack():
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    sites = {name: site for name, site in guide_trace.nodes.items() if site["type"] == "sample"}
    values = {name: site["value"] for name, site in sites.items() if not site_is_subsample(site)}
    latents_drawn = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    decoded: Any = model_trace.nodes["x"]["fn"]
    mean = model.scaling.inverse(decoded.mean)
    return Reconstruction(mean, terms(model_trace, guide_trace), latents_drawn)


@torch.no_grad()
def decode(model: DVAE, latents: Mapping[str, Tensor], x: Tensor, lengths: Tensor, *, mode: str = "gen") -> Tensor:
    """The expected data (T, N, D) given latents, whoever they are from.

    Args:
        model: the generative model.
        latents: all of them, (T, N, L), or (N, L), by site name.
        x: data (T, N, D), the past that the model sees in mode ``"gt"``; in mode ``"gen"`` it sees its own output.
        lengths: frames of each sequence (N,), on the CPU.
        mode: ``"gt"`` or ``"gen"``.
    """
    with free_running() if mode == "gen" else ExitStack():
        trace = poutine.trace(poutine.condition(model, dict(latents))).get_trace(x, lengths)
    decoded: Any = trace.nodes["x"]["fn"]
    mean: Tensor = model.scaling.inverse(decoded.mean)
    return mean
