r"""Multi-sample bounds per sequence, and low-variance estimators of their gradients.

With K draws z^k of the guide, and the log-weight of each,

.. math:: \log w_k = \log p(x_{1:T} | z^k) + \beta \, (\log p(z^k) - \log q(z^k | x)), \qquad
    \tilde w_k = w_k / \sum_j w_j,

(\beta = 1 but for `inference.handlers.kl_scale`) the importance-weighted bound of one sequence is

.. math:: L_K = E \log \frac{1}{K} \sum_k w_k \le \log p(x_{1:T})

(Burda et al., "Importance weighted autoencoders", 2016). The mean over particles is taken for each sequence: sums over
sequences come after the logarithm. Handlers scale the objective only; the reported bound is never scaled.

On long sequences the weights degenerate; `filtered` resamples the particles along the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.infer.enum import get_importance_trace
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.particles.log_weights import density, log_mean_exp, particle_plate, per_sequence, samples, trace_weights
from inference.particles.particle_filter import smc
from models.core.effects import Given
from models.core.reuse import computed_once

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from models.dvae import DVAE

__all__ = ["Multisample", "doubly_reparametrised", "filtered", "importance_weighted"]

PLATES = 3
"""Particles, frames and sequences."""

Program = Callable[..., Any]
Arguments = Mapping[str, Any]
NONE: Arguments = MappingProxyType({})


class Multisample(NamedTuple):
    """A multi-sample objective of a batch.

    Attributes:
        objective: the training objective of each sequence, (N,), differentiable.
        bound: the unscaled bound of each sequence, (N,), detached.
        model_trace, guide_trace: traces of plain draws of the guide, with their log-densities.
    """

    objective: Tensor
    bound: Tensor
    model_trace: Trace
    guide_trace: Trace


def importance_weighted(
    model: Program, guide: Program, args: tuple[Any, ...], particles: int, kwargs: Arguments = NONE
) -> Multisample:
    r"""L_K with the reparametrised gradient, through weights, draws and densities.

    The signal-to-noise ratio of the guide's gradient decreases with K as 1 / \sqrt K (Rainforth et al., "Tighter
    variational bounds are not necessarily better", 2018).

    Args:
        model: the generative model.
        guide: the inference model.
        args: arguments of both.
        particles: the number K of draws.
        kwargs: keyword arguments of both.

    Raises:
        UserError: for a latent that is not reparametrised: its gradient would be wrong.
    """
    with computed_once(), particle_plate(particles):
        model_trace, guide_trace = get_importance_trace("flat", PLATES, model, guide, args, dict(kwargs))
    _refuse_unreparametrised(guide_trace)
    return _multisample(log_mean_exp(trace_weights(model_trace, guide_trace)), model_trace, guide_trace)


def doubly_reparametrised(
    model: Program, guide: Program, args: tuple[Any, ...], particles: int, kwargs: Arguments = NONE
) -> Multisample:
    r"""L_K with the doubly reparametrised gradient (Tucker et al., "Doubly reparameterized gradient estimators for
    Monte Carlo objectives", 2019), whose signal-to-noise ratio does not decrease with K.

    The draws are z^k = g_\phi(\epsilon^k), all frames and latents of a sequence. The model's parameters get the plain
    gradient; the guide's gradient flows through the draws only,

    .. math:: \sum_k \tilde w_k \nabla_\theta \log p_\theta(x, z^k), \qquad
        \sum_k \bigl((1 - \beta) \tilde w_k + \beta \tilde w_k^2\bigr)
        \frac{\partial \log w_k}{\partial z^k} \frac{\partial z^k}{\partial \phi},

    with \phi in \log q_\phi(z^k | x) held constant, but not z^k: the dependence of q(z_t | z_{t-1}, x) on earlier z is
    part of \partial \log w_k / \partial z^k. (For \beta = 1 this is the paper's estimator; the other term follows from
    its equation 6 when the score of q is weighted by \beta.) A parameter that guide and model share, such as those of
    VRNN's recurrent network, gets the sum of both gradients.

    With K = 1 and \beta = 1 this is the bound's gradient without the score (Roeder et al., "Sticking the landing",
    2017). With gradients disabled it is `importance_weighted`, which documents the arguments.

    Raises:
        UserError: for a latent that is not reparametrised, or latents with different weights.
    """
    if not torch.is_grad_enabled():
        return importance_weighted(model, guide, args, particles, kwargs)
    with computed_once(), particle_plate(particles):
        drawn = poutine.trace(guide).get_trace(*args, **kwargs)
        _refuse_unreparametrised(drawn)
        draws: dict[str, Tensor] = {name: site["value"] for name, site in samples(drawn).items()}
        held = {name: z.detach().requires_grad_() for name, z in draws.items()}
        paths = {name: z.view_as(z) for name, z in draws.items()}
        guide_trace, model_trace = _scored(guide, args, kwargs, held), _scored(model, args, kwargs, paths)
    _refuse_other_density(drawn, guide_trace)
    beta = _common_scale(guide_trace)
    log_p, log_q = (density(trace).reshape(particles, -1) for trace in (model_trace, guide_trace))
    weight = torch.softmax((log_p - log_q).detach(), 0)
    share = (1.0 - beta) + beta * weight  # times the weight w gives the weight of the formula above
    share = share[:, None, :, None] if particles > 1 else share[0, :, None]
    scores = torch.autograd.grad((weight * log_q).sum(), list(held.values()), materialize_grads=True)  # 0 at points
    surrogate = weight * log_p
    for path, draw, score in zip(paths.values(), draws.values(), scores, strict=True):
        if path.requires_grad:
            path.register_hook(lambda gradient: gradient * share)
            surrogate = surrogate - per_sequence((share * score * draw).sum(-1)).reshape(particles, -1)
    gradient_only = (surrogate - surrogate.detach()).sum(0)
    return _multisample(log_mean_exp((log_p - log_q).detach()) + gradient_only, model_trace, guide_trace)


def filtered(
    model: DVAE,
    guide: Guide,
    args: tuple[Any, ...],
    particles: int,
    kwargs: Arguments = NONE,
    *,
    threshold: float = 0.5,
) -> Multisample:
    r"""The filtering bound (Maddison et al., "Filtering variational objectives", 2017; also Le et al. and Naesseth et
    al., 2018):

    .. math:: E \log \hat p(x_{1:T}) \le \log p(x_{1:T}),

    \hat p the unbiased estimate of a particle filter (`inference.particles.particle_filter.smc`) with the guide as
    proposal. As in the paper, the gradient of the resampling step is omitted: a small bias for a large reduction of
    variance. Without resampling it is `importance_weighted`.

    The traces come from separate draws. Where handlers scale latents, resampling uses scaled weights, and the bound is
    measured by a second, unscaled filter. Arguments as of `importance_weighted`, and

    Args:
        threshold: particles of a sequence are resampled where their effective sample size is below `threshold` K.

    Raises:
        UserError: for a latent that is not reparametrised, or a model without a step.
        ValueError: for a `how` other than "auto": the filter always runs frame by frame.
    """
    x, lengths, how = _batch(*args, **kwargs)
    if how != "auto":
        raise ValueError(f"how='{how}': a particle filter always runs frame by frame; expected 'auto'")
    with torch.no_grad(), particle_plate(particles):
        model_trace, guide_trace = get_importance_trace("flat", PLATES, model, guide, args, dict(kwargs))
    _refuse_unreparametrised(guide_trace)
    objective = smc(model, guide, x, lengths, particles, threshold=threshold, keep=False).log_evidence
    bound = objective.detach()
    if _scales(guide_trace) != {1.0}:
        with torch.no_grad():
            bound = smc(model, guide, x, lengths, particles, threshold=threshold, keep=False, scaled=False).log_evidence
    return Multisample(objective, bound, model_trace, guide_trace)


def _batch(x: Tensor, lengths: Tensor, how: str = "auto") -> tuple[Tensor, Tensor, str]:
    return x, lengths, how


def _scored(program: Program, args: tuple[Any, ...], kwargs: Arguments, values: Mapping[str, Tensor]) -> Trace:
    """The program's trace with its latents set, and their log-densities."""
    with Given(dict(values)):
        trace: Trace = poutine.trace(program).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


def _multisample(objective: Tensor, model_trace: Trace, guide_trace: Trace) -> Multisample:
    with torch.no_grad():
        bound = log_mean_exp(trace_weights(model_trace, guide_trace, scaled=False)).detach()
    return Multisample(objective, bound, model_trace, guide_trace)


def _refuse_other_density(drawn: Trace, again: Trace) -> None:
    """Refuse a guide with randomness besides its latents, whose density of the same draws differs between runs."""
    with torch.no_grad():
        drawn.compute_log_prob()
        first, second = density(drawn, scaled=False), density(again, scaled=False)
        if bool(((first - second).abs() > 1e-3 * (1.0 + first.abs())).any()):
            raise UserError(
                "the guide's density of the same draws differs between two runs, so it has randomness besides its "
                "latents, such as dropout. Use train.objective=iwae, or set dropout to 0."
            )


def _common_scale(trace: Trace) -> float:
    """The scale of the latents, which must be the same for all."""
    distinct = _scales(trace)
    if len(distinct) != 1:
        raise UserError(
            f"the doubly reparametrised gradient needs the same weight for all latents, got {sorted(distinct)}. "
            "Use train.objective=iwae, or one weight for all (train.beta)."
        )
    return distinct.pop()


def _scales(trace: Trace) -> set[float]:
    """The scales of the latents, set by handlers."""
    return {float(s) for site in samples(trace).values() for s in torch.as_tensor(site["scale"]).flatten().tolist()}


def _refuse_unreparametrised(guide_trace: Trace) -> None:
    for name, site in samples(guide_trace).items():
        if not site["fn"].has_rsample:
            raise UserError(
                f"latent '{name}' is a {type(site['fn']).__name__}, which is not reparametrised: the gradient of a "
                "multi-sample bound would be wrong. Use train.objective=elbo."
            )
