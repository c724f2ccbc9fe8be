r"""Objectives: what training maximises, and the true bound that is always reported beside it.

The evidence lower bound of one sequence is

.. math:: \log p(x_{1:T}) \ge E_q[\log p(x_{1:T} | z_{1:T})] - KL(q, p), \qquad
    KL = \sum_t E_q\, KL(q(z_t | \cdot), p(z_t | \cdot)),

the expectation taken with one sample, or the mean of several (`train.particles`). Handlers
(`inference.handlers`) scale its terms for training; `Bound` reports them unscaled, from the same two traces.
Bounds that need several samples are in `inference.objectives.multisample`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import kl_divergence

from dvae_pyro.errors import UserError, nearest
from inference.handlers.free_bits import unweighted
from inference.handlers.kl_scale import kl_scale
from inference.objectives.estimators import ESTIMATORS
from inference.particles.log_weights import per_sequence, samples
from models.core.effects import base_name
from models.core.grouping import SequenceIndex, SharedSiteWeight
from models.core.program import unlisted

if TYPE_CHECKING:
    from inference.settings.tree import TrainSettings

__all__ = ["BOUNDS", "Bound", "Objective", "Terms", "terms"]

BOUNDS = {name: estimator.bound for name, estimator in ESTIMATORS.items()}
"""The bound that each objective trains, by the name that metrics.jsonl gives it."""


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
        terms: the true evidence lower bound and its terms, (N,), without graph: their mean over particles.
        multi_sample: the bound of several draws that was trained, unscaled, (N,), without graph; None where it is that
            one.
        factors: what handlers added to the objective, unscaled, by name, (N,), without graph; no part of any bound.
    """

    loss: Tensor
    terms: Terms
    multi_sample: Tensor | None = None
    factors: Mapping[str, Tensor] = MappingProxyType({})


def terms(model_trace: Trace, guide_trace: Trace) -> Terms:
    """The unscaled terms of the bound from a guide's trace and the model's trace replayed against it.

    Segments of a sequence bear what they share in equal parts (`models.core.grouping.SharedSiteWeight`).

    Raises:
        ValueError: if the guide does not draw just the model's latents.
    """
    sites, drawn = samples(model_trace), samples(guide_trace)
    latents = {name for name, site in sites.items() if not site["is_observed"]}
    if latents != set(drawn):
        raise ValueError(
            f"the model's latents are {sorted(latents)}, the guide draws {sorted(drawn)}: they must be the same sites"
        )
    reconstruction: Tensor | None = None
    kl: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, p in sites.items():
            if _is_factor(p):
                continue
            if p["is_observed"]:
                scored = "unscaled_log_prob" in p
                density = per_sequence(p["unscaled_log_prob"] if scored else p["fn"].log_prob(p["value"]))
                reconstruction = density if reconstruction is None else reconstruction + density
            else:
                base, divergence = base_name(name), per_sequence(_divergence(drawn[name], p))
                share: SharedSiteWeight | None = p["infer"].get("share")
                divergence = divergence if share is None else share.per_segment(divergence)
                kl[base] = kl[base] + divergence if base in kl else divergence
    if reconstruction is None:
        raise ValueError("the model observes no site: a bound needs data")
    return Terms(reconstruction.detach(), kl)


def _is_factor(site: Any) -> bool:
    return isinstance(site["fn"], dist.Unit)


def _divergence(q: Any, p: Any) -> Tensor:
    """KL of two conditionals by its closed form, else log q - log p at the value drawn."""
    of_q, of_p = unweighted(q["fn"]), unweighted(p["fn"])
    try:
        return kl_divergence(of_q, of_p)
    except NotImplementedError:
        density: Tensor = of_q.log_prob(q["value"]) - of_p.log_prob(p["value"])
        return density


class Objective(nn.Module):
    """A training objective over a model and a guide; the module that data-parallel training wraps.

    Args:
        model: the generative model.
        guide: the inference model.
        name: ``"elbo"``, ``"analytic"`` (the same with closed-form KL), ``"iwae"``, ``"dreg"`` or ``"fivo"``: the
            subclass of `pyro.infer.ELBO` in `inference.objectives.estimators.ESTIMATORS`.
        particles: draws of the guide for each sequence; the first two take the mean over them.
        bf16: whether networks compute in bfloat16 (`torch.autocast`) in training. Recurrent networks
            (`models.networks.recurrence`), densities and validation do not.

    Raises:
        UserError: for another name, or for a model without a step that particles are to be filtered through.
    """

    def __init__(
        self, model: nn.Module, guide: nn.Module, name: str = "elbo", particles: int = 1, *, bf16: bool = False
    ) -> None:
        super().__init__()
        if name not in BOUNDS:
            raise UserError(f"unknown train.objective '{name}'.{nearest(name, BOUNDS)} Known: {', '.join(BOUNDS)}.")
        if name == "fivo" and not getattr(model, "stepwise", True):
            raise UserError(
                f"train.objective=fivo filters particles from frame to frame, and {type(model).__name__} as it is set "
                "has no step from one to the next. Take train.objective=iwae or dreg."
            )
        if BOUNDS[name] != "elbo" and not getattr(model, "latents", True):
            raise UserError(
                f"train.objective={name} draws latents, and {type(model).__name__} as it is set has none: its ELBO is "
                "the log-likelihood. Take train.objective=elbo."
            )
        if BOUNDS[name] != "elbo" and getattr(guide, "auxiliary", 0.0) > 0.0:
            raise UserError(
                f"train.objective={name} weighs draws by their densities, in which the cost of guide.auxiliary has no "
                "part. Take train.objective=elbo or analytic, or guide.auxiliary=0."
            )
        self.model = model
        self.guide = guide
        self.name = name
        self.estimator = ESTIMATORS[name](particles)
        self.bf16 = bf16

    @classmethod
    def of(cls, model: nn.Module, guide: nn.Module, train: TrainSettings) -> Objective:
        """The one that settings describe."""
        return cls(model, guide, train.objective, train.particles, bf16=train.autocast == "bf16")

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        beta: float | Tensor = 1.0,
        how: str = "auto",
        beta_sites: Mapping[str, float | Tensor] | None = None,
        rows: SequenceIndex | None = None,
    ) -> Bound:
        """The loss and the bound of a batch.

        Args:
            x: data (T, N, D), zero beyond each length.
            lengths: frames of each sequence (N,), on the CPU.
            beta: weight of the KL in the loss; of log p(z) - log q(z | x) in every log-weight.
            how: the interpreter of the time axis, see `models.core.time_axis.run`.
            beta_sites: weights of single latents by name, in beta's place.
            rows: for a hierarchical model, which sequences of the corpus these are segments of. The program is of the
                whole corpus then, of which the loss is the batch's share.

        """
        args = (x, lengths, how) if rows is None else (x, lengths, how, rows)
        half = self.bf16 and self.training
        precision = torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False) if half else nullcontext()
        scale = poutine.scale(scale=1.0 if rows is None else rows.share)
        with unlisted(), precision, scale, kl_scale(beta, own=beta_sites):
            return self._bound(args)

    def _bound(self, args: tuple[Any, ...]) -> Bound:
        found = self.estimator.estimate(self.model, self.guide, args, {})
        factors = {
            name: _mean(per_sequence(site["unscaled_log_prob"])).detach()
            for name, site in samples(found.model_trace).items()
            if _is_factor(site)
        }
        of_elbo = _mean_over_particles(terms(found.model_trace, found.guide_trace))
        return Bound(found.loss, of_elbo, found.multi_sample, factors)


def _mean_over_particles(found: Terms) -> Terms:
    return Terms(_mean(found.reconstruction), {name: _mean(kl) for name, kl in found.kl.items()})


def _mean(v: Tensor) -> Tensor:
    """Over particles, where there are any."""
    return v.mean(0) if v.dim() > 1 else v
