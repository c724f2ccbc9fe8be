r"""Training objectives, and the unweighted ELBO, which is always reported beside them.

The evidence lower bound of one sequence is

.. math:: \log p(x_{1:T}) \ge E_q[\log p(x_{1:T} | z_{1:T})] - KL(q, p), \qquad
    KL = \sum_t E_q\, KL(q(z_t | \cdot), p(z_t | \cdot)),

with the expectation estimated by one sample, or the mean of several (`train.particles`). Handlers
(`inference.handlers`) scale its terms for training; `Bound` reports them unscaled, from the same two traces.
Multi-sample bounds are in `inference.objectives.multisample`.
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
"""The bound that each objective trains, by its key in metrics.jsonl."""


class Terms(NamedTuple):
    """The unscaled terms of the bound, in nats per sequence.

    Attributes:
        reconstruction: E_q log p(x | z), (..., N).
        kl: KL of each latent, by site name, each (..., N): in closed form given earlier latents if possible, else
            log q - log p at the sample.
    """

    reconstruction: Tensor
    kl: dict[str, Tensor]

    @property
    def elbo(self) -> Tensor:
        """The bound, (..., N)."""
        return self.reconstruction - sum(self.kl.values(), torch.zeros_like(self.reconstruction))


class Bound(NamedTuple):
    """The value of an objective for a batch.

    Attributes:
        loss: the negative training objective, summed over the batch, in nats; differentiable.
        terms: the unweighted ELBO and its terms, (N,), detached: the mean over particles.
        multi_sample: the trained multi-sample bound, unscaled, (N,), detached; None if the ELBO is trained.
        factors: terms that handlers added to the objective, unscaled, by name, (N,), detached; not part of a bound.
    """

    loss: Tensor
    terms: Terms
    multi_sample: Tensor | None = None
    factors: Mapping[str, Tensor] = MappingProxyType({})


def terms(model_trace: Trace, guide_trace: Trace) -> Terms:
    """The unscaled terms of the bound from a guide's trace and the model's trace replayed against it.

    The KL of a latent that segments share is divided equally among them (`models.core.grouping.SharedSiteWeight`).

    Raises:
        ValueError: if the guide's sites are not exactly the model's latents.
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
    """KL of two conditionals in closed form, else log q - log p at the drawn value."""
    unweighted_q, unweighted_p = unweighted(q["fn"]), unweighted(p["fn"])
    try:
        return kl_divergence(unweighted_q, unweighted_p)
    except NotImplementedError:
        density: Tensor = unweighted_q.log_prob(q["value"]) - unweighted_p.log_prob(p["value"])
        return density


class Objective(nn.Module):
    """A training objective of a model and a guide; the module that is trained.

    Args:
        model: the generative model.
        guide: the inference model.
        name: ``"elbo"``, ``"analytic"`` (the same with closed-form KL), ``"iwae"``, ``"dreg"`` or ``"fivo"``: selects
            a subclass of `pyro.infer.ELBO` in `inference.objectives.estimators.ESTIMATORS`.
        particles: draws of the guide for each sequence; the first two objectives take the mean over them.
        bf16: whether networks compute in bfloat16 (`torch.autocast`) in training. Recurrent networks
            (`models.nn.layers.recurrence`), densities and validation do not.

    Raises:
        UserError: for an unknown name, and for a model or guide that the objective does not support.
    """

    def __init__(
        self, model: nn.Module, guide: nn.Module, name: str = "elbo", particles: int = 1, *, bf16: bool = False
    ) -> None:
        super().__init__()
        if name not in BOUNDS:
            raise UserError(f"unknown train.objective '{name}'.{nearest(name, BOUNDS)} Known: {', '.join(BOUNDS)}.")
        if name == "fivo" and not getattr(model, "stepwise", True):
            raise UserError(
                f"train.objective=fivo needs a model with a step from frame to frame, which {type(model).__name__} "
                "with these settings does not have. Use train.objective=iwae or dreg."
            )
        if BOUNDS[name] != "elbo" and not getattr(model, "latents", True):
            raise UserError(
                f"train.objective={name} needs latents, which {type(model).__name__} with these settings does not "
                "have: its ELBO is the log-likelihood. Use train.objective=elbo."
            )
        if BOUNDS[name] != "elbo" and getattr(guide, "auxiliary", 0.0) > 0.0:
            raise UserError(
                f"train.objective={name} does not support guide.auxiliary, whose cost is not part of the weights of "
                "draws. Use train.objective=elbo or analytic, or guide.auxiliary=0."
            )
        self.model = model
        self.guide = guide
        self.name = name
        self.estimator = ESTIMATORS[name](particles)
        self.bf16 = bf16

    @classmethod
    def of(cls, model: nn.Module, guide: nn.Module, train: TrainSettings) -> Objective:
        """The objective that the settings describe."""
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
            beta_sites: weights of single latents by name, which replace beta.
            rows: for a hierarchical model, the sequence of each segment. The program then describes the whole corpus,
                and the loss is the batch's fraction of it.

        """
        args = (x, lengths, how) if rows is None else (x, lengths, how, rows)
        half = self.bf16 and self.training
        precision = torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False) if half else nullcontext()
        scale = poutine.scale(scale=1.0 if rows is None else rows.share)
        with unlisted(), precision, scale, kl_scale(beta, own=beta_sites):
            return self._bound(args)

    def _bound(self, args: tuple[Any, ...]) -> Bound:
        estimate = self.estimator.estimate(self.model, self.guide, args, {})
        factors = {
            name: _mean(per_sequence(site["unscaled_log_prob"])).detach()
            for name, site in samples(estimate.model_trace).items()
            if _is_factor(site)
        }
        bound_terms = _mean_over_particles(terms(estimate.model_trace, estimate.guide_trace))
        return Bound(estimate.loss, bound_terms, estimate.multi_sample, factors)


def _mean_over_particles(each: Terms) -> Terms:
    return Terms(_mean(each.reconstruction), {name: _mean(kl) for name, kl in each.kl.items()})


def _mean(v: Tensor) -> Tensor:
    """The mean over particles, if there are any."""
    return v.mean(0) if v.dim() > 1 else v
