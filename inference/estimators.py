r"""How likely data are: importance weights of the guide's draws, and the bounds that they give.

With K draws z^{(k)} of a guide q, each sequence on its own,

.. math::
    \log w_k = \log p(x, z^{(k)}) - \log q(z^{(k)} \mid x), \qquad
    \mathrm{ELBO} = E[\log w_1] \le E\Big[\log \frac1K \sum_k w_k\Big] \le \log p(x),

the importance-weighted bound (Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016, eq. 8), whose
gap falls as K grows. The mean over particles comes before any sum over sequences: a bound for each sequence.

Over long sequences the weights degenerate, and K must grow exponentially with T: `inference.particle_filter` does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from inference.noise import Seed, sequence_noise
from inference.objectives import terms

__all__ = [
    "Estimate",
    "Seed",
    "density",
    "effective_sample_size",
    "estimate",
    "log_mean_exp",
    "log_weights",
    "trace_weights",
    "traces",
]


class Estimate(NamedTuple):
    """What K particles say of each sequence, in nats.

    Attributes:
        log_weights: log w_k, (K, N).
        analytic: the bound with closed-form KLs, where there are any, (N,): the mean over the same particles.
    """

    log_weights: Tensor
    analytic: Tensor

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound from samples alone, mean over particles, (N,)."""
        return self.log_weights.mean(0)

    @property
    def iwae(self) -> Tensor:
        """The importance-weighted bound with all K particles, (N,)."""
        return log_mean_exp(self.log_weights)

    @property
    def ess(self) -> Tensor:
        """Effective sample size of the weights, between 1 and K, (N,)."""
        return effective_sample_size(self.log_weights)


def log_mean_exp(log_weights: Tensor) -> Tensor:
    r"""\log \frac1K \sum_k w_k over the first dimension, particles."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""(\sum_k w_k)^2 / \sum_k w_k^2 over the first dimension, particles.

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -1e9]))
        tensor(2.)
    """
    return torch.exp(2.0 * log_weights.logsumexp(0) - (2.0 * log_weights).logsumexp(0))


def traces(
    model: nn.Module, guide: nn.Module, x: Tensor, lengths: Tensor, particles: int, how: str = "auto"
) -> tuple[Trace, Trace]:
    """The model's trace, replayed against the guide's, both with particles left of frames and sequences (dim -3).

    Log-densities are computed, unscaled and as handlers in force scale them.
    """
    with pyro.plate("particles", particles, dim=-3):
        guide_trace = poutine.trace(guide).get_trace(x, lengths, how)
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x, lengths, how)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    return model_trace, guide_trace


def trace_weights(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """Log-weights log p(x, z) - log q(z | x) of `traces`, (K, N), their densities as handlers scale them."""
    return density(model_trace) - density(guide_trace)


def density(*of: Trace) -> Tensor:
    """Log-density of all sample sites of traces with particles, (K, N), as handlers in force scale it."""
    sites = [s for trace in of for s in trace.nodes.values() if s["type"] == "sample" and not site_is_subsample(s)]
    densities: list[Tensor] = [site["log_prob"].sum(-2) for site in sites]  # (K, T, N), or (K, 1, N) outside time
    return torch.stack(densities).sum(0)


def log_weights(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    lengths: Tensor,
    particles: int,
    *,
    chunk: int | None = None,
    seeds: Sequence[Seed] | None = None,
) -> Tensor:
    """Log-weights of K draws of the guide, (K, N), with their graph where gradients are on.

    A sequence has noise of its own, drawn particle after particle (`inference.noise.sequence_noise`), so the result
    depends neither on `chunk` nor on the other sequences of the batch.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        particles: K.
        chunk: particles of each sequence that are computed at once; memory grows with it, not with K (unless gradients
            are on). All by default.
        seeds: one for each sequence, for its noise; drawn from torch's generator by default.

    Raises:
        ValueError: unless `particles` and `chunk` are at least 1 and there are N seeds.
    """
    chunks = _chunks(model, guide, x, lengths, particles, chunk, seeds)
    return torch.cat([trace_weights(*pair) for pair in chunks])


@torch.no_grad()
def estimate(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    lengths: Tensor,
    particles: int,
    *,
    chunk: int | None = None,
    seeds: Sequence[Seed] | None = None,
) -> Estimate:
    """Log-weights and the bound with analytic KLs, from the same draws; arguments as of `log_weights`."""
    weights, bounds = [], []
    for pair in _chunks(model, guide, x, lengths, particles, chunk, seeds):
        weights.append(trace_weights(*pair))
        bounds.append(terms(*pair).elbo)
    return Estimate(torch.cat(weights), torch.cat(bounds).mean(0))


def _chunks(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    lengths: Tensor,
    particles: int,
    chunk: int | None,
    seeds: Sequence[Seed] | None,
) -> Iterator[tuple[Trace, Trace]]:
    at_once = particles if chunk is None else chunk
    if particles < 1 or at_once < 1:
        raise ValueError(f"particles={particles}, chunk={chunk}: expected at least 1")
    noise = sequence_noise(lengths, seeds)
    for first in range(0, particles, at_once):
        with noise:
            pair = traces(model, guide, x, lengths, min(at_once, particles - first))
        yield pair
