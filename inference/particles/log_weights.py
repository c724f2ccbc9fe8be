"""Log-weights of draws of a guide, per particle and sequence, from traces of model and guide.

Particles are in dim -3, left of frames and sequences; values per sequence are (K, N), or (N,) without particles.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = [
    "density",
    "effective_sample_size",
    "log_mean_exp",
    "particle_plate",
    "per_sequence",
    "samples",
    "trace_weights",
]


def particle_plate(particles: int) -> AbstractContextManager[Any]:
    """A plate of K independent draws of all sites in dim -3; a null context for K = 1."""
    return pyro.plate("particles", particles, dim=-3) if particles > 1 else nullcontext()


def samples(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace, without the plates."""
    return {
        name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)
    }


def per_sequence(log_density: Tensor) -> Tensor:
    """Sum over frames: (..., T, N) to (..., N); a tensor (N,) is unchanged."""
    return log_density.sum(-2) if log_density.dim() > 1 else log_density


def density(*of: Trace, scaled: bool = True) -> Tensor:
    """Log-density of all sample sites of traces, (..., N); 0 without sites.

    Args:
        of: the traces, with log-probabilities computed.
        scaled: whether to include the scales of handlers.
    """
    name = "log_prob" if scaled else "unscaled_log_prob"
    parts = [per_sequence(site[name]) for trace in of for site in samples(trace).values()]
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0) if parts else torch.zeros(())


def trace_weights(model_trace: Trace, guide_trace: Trace, *, scaled: bool = True) -> Tensor:
    """log w of each draw and sequence, (..., N), from traces that have their log-densities.

    Args:
        model_trace: the model's trace, replayed against the guide's.
        guide_trace: the guide's trace.
        scaled: whether to include the scales of handlers.
    """
    return density(model_trace, scaled=scaled) - density(guide_trace, scaled=scaled)


def log_mean_exp(log_weight: Tensor) -> Tensor:
    """The logarithm of the mean over particles: (K, N), or (N,) without particles, to (N,)."""
    if log_weight.dim() == 1:
        return log_weight
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""The effective sample size (\sum_k w_k)^2 / \sum_k w_k^2 over the first dimension, particles.

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -1e9]))
        tensor(2.)
    """
    return torch.exp(2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0))
