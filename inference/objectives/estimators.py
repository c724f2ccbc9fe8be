r"""The training objectives as subclasses of `pyro.infer.ELBO`, for `pyro.infer.SVI` and as torch modules.

``SVI(model, guide, optim, FIVO(num_particles=4))`` trains with FIVO; ``FIVO(4)(model, guide)(x, lengths)`` is the
differentiable loss of a batch, in nats. `inference.objectives.elbo.Objective`, which `inference.svi` trains, wraps one
of them and also computes the terms of the bound. All particles are drawn at once, in dim -3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.trace_elbo import _compute_log_r
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from dvae_pyro.errors import UserError
from inference.objectives.multisample import Multisample, doubly_reparametrised, filtered, importance_weighted
from inference.particles.log_weights import particle_plate, samples
from models.core.reuse import computed_once

__all__ = ["ESTIMATORS", "FIVO", "IWAE", "AnalyticELBO", "DReG", "Estimate", "Estimator", "TraceELBO"]

PLATES = 2
"""The number of plates: frames and sequences."""


class Estimate(NamedTuple):
    """A bound of a batch from one draw of all particles.

    Attributes:
        loss: minus the objective, summed over sequences, in nats; differentiable.
        model_trace, guide_trace: traces of the draws of the guide, with their log-densities.
        multi_sample: the unscaled multi-sample bound of each sequence, (N,), detached; None for an ELBO.
    """

    loss: Tensor
    model_trace: Trace
    guide_trace: Trace
    multi_sample: Tensor | None = None


class Estimator(ELBO):
    """A training objective of a model and a guide of this library.

    Args:
        num_particles: K, draws of the guide for each sequence.
    """

    bound: ClassVar[str] = "elbo"
    """The bound that it maximises, by its key in metrics.jsonl."""

    def __init__(self, num_particles: int = 1) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles={num_particles}: expected at least 1")
        of_pyro: Any = super()  # its methods have no annotations
        of_pyro.__init__(num_particles, max_plate_nesting=PLATES, vectorize_particles=True)

    @abstractmethod
    def estimate(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Estimate:
        """The loss of a batch and its traces; `args` and `kwargs` are the arguments of model and guide."""

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the objective of a batch, differentiable."""
        return self.estimate(model, guide, args, kwargs).loss

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective of a batch."""
        with torch.no_grad():
            return float(self.estimate(model, guide, args, kwargs).loss)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective of a batch; its gradients are accumulated in the parameters."""
        loss = self.estimate(model, guide, args, kwargs).loss
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())


class TraceELBO(Estimator, Trace_ELBO):
    """The evidence lower bound, estimated by the mean over particles of log p(x, z) - log q(z | x).

    The value and the gradient are those of Pyro's `Trace_ELBO`, which also converts each term to a Python number: on a
    GPU every conversion would be a synchronisation, and while a step is recorded it is impossible.
    """

    def estimate(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Estimate:
        of_pyro: Any = self
        with computed_once(), particle_plate(self.num_particles):
            model_trace, guide_trace = of_pyro._get_trace(model, guide, args, dict(kwargs))
        return Estimate(-self.elbo(model_trace, guide_trace) / self.num_particles, model_trace, guide_trace)

    def elbo(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """The differentiable bound, summed over particles and sequences.

        The gradient has the score of each latent that is not reparametrised times the terms of the bound that depend on
        it; the value is the bound.
        """
        bound: Any = sum(site["log_prob_sum"] for site in samples(model_trace).values())
        log_r = None
        for site in samples(guide_trace).values():
            _, score, entropy = site["score_parts"]
            if is_identically_zero(score):
                bound = bound if is_identically_zero(entropy) else bound - entropy.sum()
                continue
            log_r = _compute_log_r(model_trace, guide_trace) if log_r is None else log_r
            of_score = (log_r.sum_to(site["cond_indep_stack"]) * score).sum()
            bound = bound - site["log_prob_sum"].detach() + of_score - of_score.detach()
        elbo: Tensor = bound
        return elbo


class AnalyticELBO(TraceELBO, TraceMeanField_ELBO):
    """The evidence lower bound with every KL in closed form, given earlier latents: Pyro's `TraceMeanField_ELBO`.

    Raises:
        UserError: for a latent that is not reparametrised, whose score the gradient would leave out.
    """

    def elbo(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        bound: Any = 0.0
        drawn = samples(guide_trace)
        for name, q in drawn.items():
            if not is_identically_zero(q["score_parts"].score_function):
                raise UserError(
                    f"latent '{name}' is not reparametrised: the gradient of a bound with closed-form KLs would be "
                    "wrong. Use train.objective=elbo."
                )
        for name, p in samples(model_trace).items():
            if p["is_observed"]:
                bound = bound + p["log_prob_sum"]
                continue
            q = drawn[name]
            try:
                bound = bound - scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"]).sum()
            except NotImplementedError:
                bound = bound + p["log_prob_sum"] - q["score_parts"].entropy_term.sum()
        elbo: Tensor = bound
        return elbo


class _Multisample(Estimator):
    """A bound of several draws, by a function of `inference.objectives.multisample`."""

    objective: ClassVar[Any]
    options: Mapping[str, Any] = MappingProxyType({})

    def estimate(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Estimate:
        result: Multisample = self.objective(model, guide, args, self.num_particles, kwargs, **self.options)
        return Estimate(-result.objective.sum(), result.model_trace, result.guide_trace, result.bound)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is not a mean over single traces; call estimate")


class IWAE(_Multisample):
    """The bound `inference.objectives.multisample.importance_weighted`, with its ordinary gradient."""

    bound = "iwae"
    objective = staticmethod(importance_weighted)


class DReG(_Multisample):
    """The same bound with `inference.objectives.multisample.doubly_reparametrised` gradients."""

    bound = "iwae"
    objective = staticmethod(doubly_reparametrised)


class FIVO(_Multisample):
    """The bound of a particle filter, `inference.objectives.multisample.filtered`.

    Args:
        num_particles: K.
        threshold: particles of a sequence are resampled where their effective sample size is below `threshold` K.
    """

    bound = "fivo"
    objective = staticmethod(filtered)

    def __init__(self, num_particles: int = 1, *, threshold: float = 0.5) -> None:
        super().__init__(num_particles)
        self.options = {"threshold": threshold}


ESTIMATORS: dict[str, type[Estimator]] = {
    "elbo": TraceELBO,
    "analytic": AnalyticELBO,
    "iwae": IWAE,
    "dreg": DReG,
    "fivo": FIVO,
}
"""The objectives by their names in `train.objective`."""
