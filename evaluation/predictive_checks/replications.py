"""Draws from a fitted model: latents from the guide, data given these latents, and data from the model alone.

Draws are particles: a leading dimension (S, T, N, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from inference.estimation.importance import trace_weights, traces
from inference.handlers.free_running import free_running

__all__ = ["Draws", "posterior_draws", "prior_draws"]

VALUES_AT_ONCE = 8_000_000
"""Values of x that are drawn together."""


class Draws(NamedTuple):
    """S draws of the latents of a batch, with weights, densities and replicated data.

    Attributes:
        latents: z ~ q(z | x) by site name, (S, T, N, L), or (S, N, L) outside time; T is the number of steps of a
            latent at a coarser time scale.
        log_weight: log importance weight log p(x, z) - log q(z | x) of each draw, (S, N).
        log_likelihood: log p(x_t | x_{1:t-1}, z) of each frame, (S, T, N), zero beyond each length.
        replicated: x ~ p(x | z), (S, T, N, D); an autoregressive model is given the true past, or in mode "gen" its own
            output.
    """

    latents: dict[str, Tensor]
    log_weight: Tensor
    log_likelihood: Tensor
    replicated: Tensor


@torch.no_grad()
def posterior_draws(
    model: nn.Module, guide: nn.Module, x: Tensor, lengths: Tensor, draws: int, *, mode: str = "gt"
) -> Iterator[Draws]:
    """Draw latents from the guide, score latents and data, and draw data given the latents.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        draws: S.
        mode: ``"gt"``, the model is given the true past of x, or ``"gen"``, its own output.

    Yields:
        Some of the draws at a time.
    """
    for part in _parts(draws, x.numel()):
        with free_running() if mode == "gen" else ExitStack(), pyro.validation_enabled(False):
            model_trace, guide_trace = traces(model, guide, x, lengths, part)
        observed: Any = model_trace.nodes["x"]
        log_likelihood = observed["log_prob"].expand(part, *x.shape[:2])
        replicated = _inside(observed["fn"].sample(), lengths)
        yield Draws(_latents(guide_trace), trace_weights(model_trace, guide_trace), log_likelihood, replicated)


@torch.no_grad()
def prior_draws(model: nn.Module, lengths: Tensor, draws: int, dim: int) -> Iterator[Tensor]:
    """Draw x ~ p(x), (S, T, N, D), zero beyond each length, some of the S draws at a time.

    Args:
        model: the generative model.
        lengths: frames of each sequence (N,), on the CPU.
        draws: S.
        dim: D, which bounds the draws at a time.
    """
    for part in _parts(draws, int(lengths.max()) * len(lengths) * dim):
        with pyro.plate("particles", part, dim=-3), pyro.validation_enabled(False):
            trace: Any = poutine.trace(model).get_trace(None, lengths)
        yield _inside(trace.nodes["x"]["value"], lengths)


def _parts(draws: int, values: int) -> list[int]:
    """Sizes of the parts that S draws are divided into."""
    at_once = max(1, VALUES_AT_ONCE // values)
    return [min(at_once, draws - done) for done in range(0, draws, at_once)]


def _latents(trace: Any) -> dict[str, Tensor]:
    """The values of a guide's sites: (S, T, N, L), or (S, N, L) of those outside time, drawn as (S, 1, N, L)."""
    sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
    in_time = {name: any(plate.dim == -2 for plate in site["cond_indep_stack"]) for name, site in sites.items()}
    return {name: site["value"] if in_time[name] else site["value"].squeeze(-3) for name, site in sites.items()}


def _inside(x: Tensor, lengths: Tensor) -> Tensor:
    """x (..., T, N, D) with zeros beyond each length."""
    beyond = (torch.arange(x.shape[-3])[:, None] >= lengths.cpu())[..., None]
    return x.masked_fill(beyond.to(x.device), 0.0)
