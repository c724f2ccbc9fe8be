r"""Importance weights of draws of the guide, and the bounds on log p(x) that follow from them.

With K draws z^{(k)} of a guide q, for each sequence,

.. math::
    \log w_k = \log p(x, z^{(k)}) - \log q(z^{(k)} \mid x), \qquad
    \mathrm{ELBO} = E[\log w_1] \le E\Big[\log \frac1K \sum_k w_k\Big] \le \log p(x),

the importance-weighted bound (Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016, eq. 8), whose
gap decreases with K. The mean over particles is taken before any sum over sequences: there is one bound per sequence.

On long sequences the weights degenerate: K must grow exponentially with T for the same accuracy. The particle filter
(`inference.particles.particle_filter`) avoids that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from inference.handlers.given_noise import given_noise
from inference.handlers.noise import Seed, SequenceNoise
from inference.objectives.elbo import terms
from inference.particles.log_weights import density, effective_sample_size, log_mean_exp, trace_weights

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
    """Log-weights and bounds of each sequence from K particles, in nats.

    Attributes:
        log_weights: log w_k, (K, N).
        analytic: the ELBO with closed-form KLs where these exist, (N,): the mean over the same particles.
        kl: the KL of each latent, (N,), by site name.
    """

    log_weights: Tensor
    analytic: Tensor
    kl: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def elbo(self) -> Tensor:
        """The ELBO by Monte Carlo, without closed-form KLs, mean over particles, (N,)."""
        return self.log_weights.mean(0)

    @property
    def iwae(self) -> Tensor:
        """The importance-weighted bound with all K particles, (N,)."""
        return log_mean_exp(self.log_weights)

    @property
    def ess(self) -> Tensor:
        """Effective sample size of the weights, between 1 and K, (N,)."""
        return effective_sample_size(self.log_weights)


def traces(
    model: nn.Module, guide: nn.Module, x: Tensor, lengths: Tensor, particles: int, how: str = "auto"
) -> tuple[Trace, Trace]:
    """Traces of the model, replayed against the guide, and of the guide, with particles at dim -3.

    Log-densities are computed, both without and with the scales of active handlers.
    """
    with pyro.plate("particles", particles, dim=-3):
        guide_trace = poutine.trace(guide).get_trace(x, lengths, how)
        model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(x, lengths, how)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    return model_trace, guide_trace


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
    """Log-weights of K draws of the guide, (K, N), differentiable where gradients are enabled.

    Each sequence has its own noise, drawn particle after particle (`inference.handlers.noise.SequenceNoise`), so the
    result depends neither on `chunk` nor on the other sequences of the batch.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        particles: K.
        chunk: particles of each sequence that are computed at once; all by default. Memory grows with `chunk`, not with
            K (unless gradients are enabled).
        seeds: a seed for the noise of each sequence; drawn from torch's generator by default.

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
    """Log-weights, the ELBO with closed-form KLs and the KLs, from the same draws; arguments as of `log_weights`."""
    weights, bound_terms = [], []
    for pair in _chunks(model, guide, x, lengths, particles, chunk, seeds):
        weights.append(trace_weights(*pair))
        bound_terms.append(terms(*pair))
    kl = {name: torch.cat([one.kl[name] for one in bound_terms]).mean(0) for name in bound_terms[0].kl}
    return Estimate(torch.cat(weights), torch.cat([one.elbo for one in bound_terms]).mean(0), kl)


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
    noise = given_noise(SequenceNoise(lengths, seeds))
    for first in range(0, particles, at_once):
        with noise:
            pair = traces(model, guide, x, lengths, min(at_once, particles - first))
        yield pair
