"""Log-weights of draws of a guide: what traces of a model and a guide say of each particle and sequence.

Particles are in dim -3, left of frames and sequences, so whatever is per sequence is (K, N), or (N,) without them.
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
    """K independent draws of everything, in dim -3, left of frames and sequences; one draw needs no dimension."""
    return pyro.plate("particles", particles, dim=-3) if particles > 1 else nullcontext()


def samples(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace, without the plates."""
    return {
        name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)
    }


def per_sequence(log_density: Tensor) -> Tensor:
    """Sum over frames: (..., T, N) to (..., N); what is already per sequence stays."""
    return log_density.sum(-2) if log_density.dim() > 1 else log_density


def density(*of: Trace, scaled: bool = True) -> Tensor:
    """Log-density of all sample sites of traces, (..., N): their log-probabilities are computed already. None: 0.

    Args:
        of: the traces.
        scaled: whether with the scales that handlers gave the sites.
    """
    name = "log_prob" if scaled else "unscaled_log_prob"
    parts = [per_sequence(site[name]) for trace in of for site in samples(trace).values()]
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0) if parts else torch.zeros(())


def trace_weights(model_trace: Trace, guide_trace: Trace, *, scaled: bool = True) -> Tensor:
    """log w of each draw and sequence, (..., N), from traces that have their log-densities.

    Args:
        model_trace: the model's, replayed against the guide's.
        guide_trace: the guide's.
        scaled: whether with the scales that handlers gave the sites.
    """
    return density(model_trace, scaled=scaled) - density(guide_trace, scaled=scaled)


def log_mean_exp(log_weight: Tensor) -> Tensor:
    """The logarithm of the mean over particles: (K, N), or (N,) for one, to (N,)."""
    if log_weight.dim() == 1:
        return log_weight
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""(\sum_k w_k)^2 / \sum_k w_k^2 over the first dimension, particles.

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -1e9]))
        tensor(2.)
    """
    return torch.exp(2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0))
