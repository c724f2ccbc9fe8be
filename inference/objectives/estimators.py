r"""The objectives as Pyro's: subclasses of `pyro.infer.ELBO`, for `pyro.infer.SVI` and as torch modules.

``SVI(model, guide, optim, FIVO(num_particles=4))`` trains with it; ``FIVO(4)(model, guide)(x, lengths)`` is the loss of
a batch in nats, with its graph. `inference.objectives.elbo.Objective`, which `inference.svi` trains, is one of them
with the terms of the true bound beside it. Particles are always drawn at once, in dim -3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import FunctionType, MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.objectives.multisample import Multisample, doubly_reparametrised, filtered, importance_weighted
from inference.particles.log_weights import particle_plate

__all__ = ["ESTIMATORS", "FIVO", "IWAE", "AnalyticELBO", "DReG", "Estimate", "Estimator", "TraceELBO"]

PLATES = 2
"""Frames and sequences."""


class Estimate(NamedTuple):
    """A bound of a batch from one draw of all particles.

    Attributes:
        loss: minus the objective, summed over sequences, in nats; with its graph.
        model_trace, guide_trace: draws of the guide, with their log-densities.
        multi_sample: the unscaled bound of several draws of each sequence, (N,), without graph; None for an ELBO.
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
    """The bound that it maximises, by the name that metrics.jsonl gives it."""

    def __init__(self, num_particles: int = 1) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles={num_particles}: expected at least 1")
        of_pyro: Any = super()  # its methods have no annotations
        of_pyro.__init__(num_particles, max_plate_nesting=PLATES, vectorize_particles=True)

    @abstractmethod
    def estimate(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Estimate:
        """The loss of a batch and the traces it comes from; `args` and `kwargs` are what model and guide are given."""

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the objective of a batch, with its graph."""
        return self.estimate(model, guide, args, kwargs).loss

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective of a batch."""
        with torch.no_grad():
            return float(self.estimate(model, guide, args, kwargs).loss)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective of a batch; its gradients are left in the parameters."""
        loss = self.estimate(model, guide, args, kwargs).loss
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())


def _without_values(function: Any) -> Any:
    """A function of Pyro's that asks for the value of each term as a number, without that.

    The numbers are not used here: on a GPU each would be waited for, and while a step is recorded there is none.
    """
    names = {**function.__globals__, "torch_item": lambda value: 0.0}
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


class TraceELBO(Estimator, Trace_ELBO):
    """The evidence lower bound, log p(x, z) - log q(z | x) at the draws, their mean over particles: Pyro's
    `Trace_ELBO`.
    """

    _differentiable_loss_particle = _without_values(Trace_ELBO._differentiable_loss_particle)

    def estimate(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Estimate:
        of_pyro: Any = self
        with particle_plate(self.num_particles):
            model_trace, guide_trace = of_pyro._get_trace(model, guide, args, dict(kwargs))
            _, loss = of_pyro._differentiable_loss_particle(model_trace, guide_trace)
        return Estimate(loss / self.num_particles, model_trace, guide_trace)


class AnalyticELBO(TraceELBO, TraceMeanField_ELBO):
    """The same with every KL in closed form, given the latents before: Pyro's `TraceMeanField_ELBO`."""

    _differentiable_loss_particle = _without_values(TraceMeanField_ELBO._differentiable_loss_particle)


class _Multisample(Estimator):
    """A bound of several draws, by a function of `inference.objectives.multisample`."""

    objective: ClassVar[Any]
    options: Mapping[str, Any] = MappingProxyType({})

    def estimate(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Estimate:
        found: Multisample = self.objective(model, guide, args, self.num_particles, kwargs, **self.options)
        return Estimate(-found.objective.sum(), found.model_trace, found.guide_trace, found.bound)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is no mean over single traces: call estimate")


class IWAE(_Multisample):
    """`inference.objectives.multisample.importance_weighted` with its plain gradient."""

    bound = "iwae"
    objective = staticmethod(importance_weighted)


class DReG(_Multisample):
    """The same bound with `inference.objectives.multisample.doubly_reparametrised` gradients."""

    bound = "iwae"
    objective = staticmethod(doubly_reparametrised)


class FIVO(_Multisample):
    """`inference.objectives.multisample.filtered`, the bound of a particle filter.

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
"""The objectives by the names that `train.objective` takes."""
