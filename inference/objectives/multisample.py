r"""Bounds from several draws of the guide, per sequence, and gradients of them that do not drown in noise.

With K draws z^k of the guide, and the log-weight of each,

.. math:: \log w_k = \log p(x_{1:T} | z^k) + \beta \, (\log p(z^k) - \log q(z^k | x)), \qquad
    \tilde w_k = w_k / \sum_j w_j,

(\beta = 1 but for `inference.handlers.kl_scale`) the importance-weighted bound of one sequence is

.. math:: L_K = E \log \frac{1}{K} \sum_k w_k \le \log p(x_{1:T})

(Burda et al., "Importance weighted autoencoders", 2016). The mean over particles is taken for each sequence: sums over
sequences come after the logarithm. What handlers scale is the objective; the bound beside it is never scaled.

Over long sequences a few draws carry all the weight; `filtered` resamples them on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from models.dvae import DVAE

__all__ = ["Multisample", "doubly_reparametrised", "filtered", "importance_weighted"]

PLATES = 3
"""Particles, frames and sequences."""

Program = Callable[..., Any]


class Multisample(NamedTuple):
    """What several draws of the guide give for a batch.

    Attributes:
        objective: the training objective of each sequence, (N,), with its graph.
        bound: the unscaled bound of each sequence, (N,), without graph.
        model_trace, guide_trace: draws of the guide as it is, with their log-densities.
    """

    objective: Tensor
    bound: Tensor
    model_trace: Trace
    guide_trace: Trace


def importance_weighted(model: Program, guide: Program, args: tuple[Any, ...], particles: int) -> Multisample:
    r"""L_K with its plain gradient, through weights, draws and densities alike.

    The guide's part of that gradient has a signal-to-noise ratio that falls with K as 1 / \sqrt K (Rainforth et al.,
    "Tighter variational bounds are not necessarily better", 2018).

    Args:
        model: the generative model.
        guide: the inference model.
        args: what both are called with.
        particles: the number K of draws.

    Raises:
        UserError: for a latent that is not reparametrised: its gradient would be wrong.
    """
    with particle_plate(particles):
        model_trace, guide_trace = get_importance_trace("flat", PLATES, model, guide, args, {})
    _refuse_unreparametrised(guide_trace)
    return _multisample(log_mean_exp(trace_weights(model_trace, guide_trace)), model_trace, guide_trace)


def doubly_reparametrised(model: Program, guide: Program, args: tuple[Any, ...], particles: int) -> Multisample:
    r"""L_K with the doubly reparametrised gradient (Tucker et al., "Doubly reparameterized gradient estimators for
    Monte Carlo objectives", 2019), whose signal-to-noise ratio does not fall with K.

    The draws are z^k = g_\phi(\epsilon^k), all frames and latents of a sequence. The model's parameters get the plain
    gradient, the guide's get theirs through the draws alone,

    .. math:: \sum_k \tilde w_k \nabla_\theta \log p_\theta(x, z^k), \qquad
        \sum_k \bigl((1 - \beta) \tilde w_k + \beta \tilde w_k^2\bigr)
        \frac{\partial \log w_k}{\partial z^k} \frac{\partial z^k}{\partial \phi},

    with \phi held in \log q_\phi(z^k | x) but not z^k: where q(z_t | z_{t-1}, x) looks back at z, that path is in
    \partial \log w_k / \partial z^k. (For \beta = 1 this is the paper's; the other term is what its equation 6 leaves
    of the score of q when that is weighted by \beta.) A parameter that guide and model share, such as those of VRNN's
    recurrent network, gets both parts: its gradient is the sum of what it is owed in either place.

    With K = 1 and \beta = 1 this is the bound's gradient without the score (Roeder et al., "Sticking the landing",
    2017). Without gradients it is `importance_weighted`. Arguments as there.

    Raises:
        UserError: for a latent that is not reparametrised, or latents that handlers weigh differently.
    """
    if not torch.is_grad_enabled():
        return importance_weighted(model, guide, args, particles)
    with particle_plate(particles):
        drawn = poutine.trace(guide).get_trace(*args)
        _refuse_unreparametrised(drawn)
        draws: dict[str, Tensor] = {name: site["value"] for name, site in samples(drawn).items()}
        held = {name: z.detach().requires_grad_() for name, z in draws.items()}
        paths = {name: z.view_as(z) for name, z in draws.items()}
        guide_trace, model_trace = _scored(guide, args, held), _scored(model, args, paths)
    _refuse_other_density(drawn, guide_trace)
    beta = _common_scale(guide_trace)
    log_p, log_q = (density(trace).reshape(particles, -1) for trace in (model_trace, guide_trace))
    weight = torch.softmax((log_p - log_q).detach(), 0)
    share = (1.0 - beta) + beta * weight  # makes of a gradient weighted by w one that is weighted as above
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
    model: DVAE, guide: Guide, args: tuple[Any, ...], particles: int, *, threshold: float = 0.5
) -> Multisample:
    r"""The filtering bound (Maddison et al., "Filtering variational objectives", 2017; also Le et al. and Naesseth et
    al., 2018):

    .. math:: E \log \hat p(x_{1:T}) \le \log p(x_{1:T}),

    \hat p the unbiased estimate of a particle filter (`inference.particles.particle_filter.smc`) with the guide as
    proposal. As
    in its paper the choice of ancestors gives no gradient: a small bias, for most of the variance.
    Without resampling it is `importance_weighted`.

    The traces are of draws of their own. Where handlers scale latents the weights that particles are resampled by are
    scaled too; the bound is then measured by a filter of its own. Arguments as of `importance_weighted`, and

    Args:
        threshold: particles of a sequence are resampled where their effective sample size is below `threshold` K.

    Raises:
        UserError: for a latent that is not reparametrised, or a model without a step.
        ValueError: for an interpreter of the time axis: the filter goes frame by frame on its own.
    """
    x, lengths, how = args
    if how != "auto":
        raise ValueError(f"how='{how}': a particle filter goes frame by frame on its own; expected 'auto'")
    with torch.no_grad(), particle_plate(particles):
        model_trace, guide_trace = get_importance_trace("flat", PLATES, model, guide, args, {})
    _refuse_unreparametrised(guide_trace)
    objective = smc(model, guide, x, lengths, particles, threshold=threshold, keep=False).log_evidence
    bound = objective.detach()
    if _scales(guide_trace) != {1.0}:
        with torch.no_grad():
            bound = smc(model, guide, x, lengths, particles, threshold=threshold, keep=False, scaled=False).log_evidence
    return Multisample(objective, bound, model_trace, guide_trace)


def _scored(program: Program, args: tuple[Any, ...], values: Mapping[str, Tensor]) -> Trace:
    """The program's trace with its latents set, and their log-densities."""
    with Given(dict(values)):
        trace: Trace = poutine.trace(program).get_trace(*args)
    trace.compute_log_prob()
    return trace


def _multisample(objective: Tensor, model_trace: Trace, guide_trace: Trace) -> Multisample:
    with torch.no_grad():
        bound = log_mean_exp(trace_weights(model_trace, guide_trace, scaled=False)).detach()
    return Multisample(objective, bound, model_trace, guide_trace)


def _refuse_other_density(drawn: Trace, again: Trace) -> None:
    """A guide that is random beyond its latents gives another density to what it has just drawn."""
    with torch.no_grad():
        drawn.compute_log_prob()
        first, second = density(drawn, scaled=False), density(again, scaled=False)
        if bool(((first - second).abs() > 1e-3 * (1.0 + first.abs())).any()):
            raise UserError(
                "the guide gives its own draws another density when it is run again, so it is random beyond its "
                "latents (dropout?). Take train.objective=iwae, or take the dropout out."
            )


def _common_scale(trace: Trace) -> float:
    """The weight that handlers gave all latents alike."""
    distinct = _scales(trace)
    if len(distinct) != 1:
        raise UserError(
            f"the doubly reparametrised gradient weighs all latents alike, got the weights {sorted(distinct)}. "
            "Take train.objective=iwae, or one weight for all (train.beta)."
        )
    return distinct.pop()


def _scales(trace: Trace) -> set[float]:
    """The weights that handlers gave the latents."""
    return {float(s) for site in samples(trace).values() for s in torch.as_tensor(site["scale"]).flatten().tolist()}


def _refuse_unreparametrised(guide_trace: Trace) -> None:
    for name, site in samples(guide_trace).items():
        if not site["fn"].has_rsample:
            raise UserError(
                f"latent '{name}' is a {type(site['fn']).__name__}, which is not reparametrised: the gradient of a "
                "bound from several draws would be wrong. Take train.objective=elbo."
            )
