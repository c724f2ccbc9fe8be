r"""Objectives: what training maximises, and the true bound that is always reported beside it.

The evidence lower bound of one sequence is

.. math:: \log p(x_{1:T}) \ge E_q[\log p(x_{1:T} | z_{1:T})] - KL(q, p), \qquad
    KL = \sum_t E_q\, KL(q(z_t | \cdot), p(z_t | \cdot)),

the expectation taken with one sample. Handlers (`inference.handlers`) scale its terms for training; `Bound`
reports them unscaled, from the same two traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import kl_divergence

from inference.errors import UserError, nearest
from inference.handlers import base_name, kl_scale

__all__ = ["Bound", "Objective", "Terms", "terms"]

ESTIMATORS: dict[str, Any] = {"elbo": Trace_ELBO, "analytic": TraceMeanField_ELBO}


class Terms(NamedTuple):
    """The unscaled terms of the bound, in nats per sequence.

    Attributes:
        reconstruction: E_q log p(x | z), (..., N).
        kl: KL of each latent, by site name, each (..., N): the closed form given the latents before where
            there is one, else log q - log p at the sample.
    """

    reconstruction: Tensor
    kl: dict[str, Tensor]

    @property
    def elbo(self) -> Tensor:
        """The bound, (..., N)."""
        return self.reconstruction - sum(self.kl.values(), torch.zeros_like(self.reconstruction))


class Bound(NamedTuple):
    """What an objective gives for a batch.

    Attributes:
        loss: minus the training objective, summed over the batch, in nats; with its graph.
        terms: the true bound and its terms, without graph.
    """

    loss: Tensor
    terms: Terms


def terms(model_trace: Trace, guide_trace: Trace) -> Terms:
    """The unscaled terms of the bound from a guide's trace and the model's trace replayed against it.

    Raises:
        ValueError: if the guide does not draw just the model's latents.
    """
    sites, drawn = _samples(model_trace), _samples(guide_trace)
    latents = {name for name, site in sites.items() if not site["is_observed"]}
    if latents != set(drawn):
        raise ValueError(
            f"the model's latents are {sorted(latents)}, the guide draws {sorted(drawn)}: they must be the same sites"
        )
    reconstruction: Tensor | None = None
    kl: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, p in sites.items():
            if p["is_observed"]:
                scored = "unscaled_log_prob" in p
                density = _per_sequence(p["unscaled_log_prob"] if scored else p["fn"].log_prob(p["value"]))
                reconstruction = density if reconstruction is None else reconstruction + density
            else:
                base, divergence = base_name(name), _per_sequence(_divergence(drawn[name], p))
                kl[base] = kl[base] + divergence if base in kl else divergence
    if reconstruction is None:
        raise ValueError("the model observes no site: a bound needs data")
    return Terms(reconstruction.detach(), kl)


def _samples(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace, without the plates."""
    return {
        name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)
    }


def _divergence(q: Any, p: Any) -> Tensor:
    """KL of two conditionals by its closed form, else log q - log p at the value drawn."""
    try:
        return kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        density: Tensor = q["fn"].log_prob(q["value"]) - p["fn"].log_prob(p["value"])
        return density


def _per_sequence(log_density: Tensor) -> Tensor:
    """Sum over frames: (..., T, N) to (..., N); what is already per sequence stays."""
    return log_density.sum(-2) if log_density.dim() > 1 else log_density


class Objective(nn.Module):
    """A training objective over a model and a guide; the module that data-parallel training wraps.

    Args:
        model: the generative model.
        guide: the inference model.
        name: ``"elbo"`` (Pyro's `Trace_ELBO`) or ``"analytic"`` (the same with closed-form KL,
            `TraceMeanField_ELBO`).

    Raises:
        UserError: for another name.
    """

    def __init__(self, model: nn.Module, guide: nn.Module, name: str = "elbo") -> None:
        super().__init__()
        if name not in ESTIMATORS:
            raise UserError(
                f"unknown train.objective '{name}'.{nearest(name, ESTIMATORS)} Known: {', '.join(ESTIMATORS)}."
            )
        self.model = model
        self.guide = guide
        self.estimator = ESTIMATORS[name](max_plate_nesting=2)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        beta: float = 1.0,
        how: str = "auto",
        beta_sites: Mapping[str, float] | None = None,
    ) -> Bound:
        """The loss and the bound of a batch.

        Args:
            x: data (T, N, D), zero beyond each length.
            lengths: frames of each sequence (N,), on the CPU.
            beta: weight of the KL in the loss.
            how: the interpreter of the time axis, see `models.time_axis.run`.
            beta_sites: weights of single latents by name, in beta's place.
        """
        with kl_scale(beta, own=beta_sites):
            model_trace, guide_trace = self.estimator._get_trace(self.model, self.guide, (x, lengths, how), {})
            _, loss = self.estimator._differentiable_loss_particle(model_trace, guide_trace)
        return Bound(loss, terms(model_trace, guide_trace))
