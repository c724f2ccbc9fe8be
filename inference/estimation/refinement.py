r"""Refinement of a guide per sequence, which estimates the amortisation gap.

A guide is amortised: the parameters of each conditional are outputs of networks shared by all sequences. Refinement
adds free parameters for every sequence,

.. math:: q^*(z_t | \cdot) = N\big(\mu_t + a_t + B_t z_{t-1},\; \sigma_t^2 e^{s_t}\big),

with :math:`\mu_t, \sigma_t` of the guide, and :math:`B_t` only if the guide's z_t depends on z_{t-1}. They start at
zero, where q* = q, and follow the gradient of the bound with model and guide fixed. The increase of the bound is the
amortisation gap; the remaining difference to log p(x) is the approximation gap of the guide's family (Cremer, Li &
Duvenaud, "Inference suboptimality in variational autoencoders", 2018, eqs. 4, 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from guides.core.guide import Guide, GuideSettings
from inference.estimation.importance import Seed, estimate
from inference.objectives.elbo import Objective
from inference.particles.log_weights import samples
from models.core.sites import Sites
from models.core.time_axis import TimeAxis
from models.dvae import DVAE

__all__ = ["Refined", "frozen", "improve", "refine", "remembers"]

CHECKS = 8  # how often the parameters are compared with the best so far


class Refined(Guide):
    """A guide with offsets for one batch of sequences, initially zero; it replaces the guide in every use.

    Args:
        model: the generative model.
        guide: the guide to refine, whose conditionals get the offsets.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        remembers: whether z_{t-1} is among the parents of z_t in the guide.

    Raises:
        UserError: for a latent that is neither Gaussian nor a point mass; point masses are not refined.
    """

    def __init__(self, model: DVAE, guide: Guide, x: Tensor, lengths: Tensor, *, remembers: bool) -> None:
        super().__init__(model)
        self.guide = guide
        self.stepwise = guide.stepwise
        self.offsets = nn.ParameterDict()
        with torch.no_grad():
            drawn = samples(poutine.trace(guide).get_trace(x, lengths))
        for name, site in drawn.items():
            if isinstance(_unmasked(site["fn"]), dist.Delta):
                continue
            if not isinstance(_unmasked(site["fn"]), dist.Normal):
                raise UserError(f"latent '{name}' is not Gaussian: only Gaussian latents can be refined.")
            zero = torch.zeros_like(site["value"])  # (T, N, L), or (N, L) outside time
            self.offsets[f"{name}_mean"] = nn.Parameter(zero.clone())
            self.offsets[f"{name}_log_variance"] = nn.Parameter(zero.clone())
            if remembers and zero.dim() == 3:
                self.offsets[f"{name}_before"] = nn.Parameter(zero[..., None].repeat(1, 1, 1, zero.shape[-1]))

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        with _offset(self.offsets):
            return self.guide.encode(sites, lengths)

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        with _offset(self.offsets):
            self.guide.step(t, encoded)

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        with _offset(self.offsets):
            self.guide.all_frames(sites, lengths)


class _offset(Messenger):
    """Add offsets to the conditionals of the guide's latents."""

    def __init__(self, offsets: nn.ParameterDict) -> None:
        super().__init__()
        self.offsets = offsets

    def _pyro_conditional(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]

        def offset(parameter: str) -> Tensor:
            v: Tensor = self.offsets[f"{name}_{parameter}"]
            return v if axis is None else v[axis.start : axis.stop]

        normal = distribution.base_dist
        mean, deviation = normal.loc + offset("mean"), normal.scale * torch.exp(0.5 * offset("log_variance"))
        if f"{name}_before" in self.offsets:
            mean = mean + (offset("before") @ axis.prev(name)[..., None])[..., 0]
        msg["value"] = dist.Independent(dist.Normal(mean, deviation), 1)
        msg["done"] = True


def refine(
    model: DVAE,
    guide: Guide,
    x: Tensor,
    lengths: Tensor,
    *,
    remembers: bool,
    steps: int = 100,
    particles: int = 4,
    lr: float = 0.02,
    seeds: Sequence[Seed] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Refined:
    """Refine a guide for a batch by Adam on the bound with closed-form KLs; the learning rate decays to zero.

    The matrices B_t have a tenth of the learning rate, because their effect accumulates over later frames.

    The bound of each sequence is measured eight times during the optimisation with the noise of `seeds`, and each
    sequence keeps its best offsets, zero included: with that noise the bound is never below the unrefined guide's.
    Measure it again with other noise before reporting it: the maximum over offsets is biased upwards.

    Args:
        model: the generative model.
        guide: the guide.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        remembers: whether z_{t-1} is among the parents of z_t in the guide.
        steps: gradient steps.
        particles: draws for each gradient; four times as many for each comparison.
        lr: initial learning rate of the offsets.
        seeds: a seed for each sequence's noise in the comparisons.
        progress: called after each step.
    """
    refined = Refined(model, guide, x, lengths, remembers=remembers)
    with frozen(model, guide):
        matrices = [p for name, p in refined.offsets.items() if name.endswith("_before")]
        others = [p for name, p in refined.offsets.items() if not name.endswith("_before")]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": matrices, "lr": 0.1 * lr}]
        improve(model, refined, groups, x, lengths, steps, particles, lr, seeds, progress)
    return refined


def improve(
    model: DVAE,
    guide: nn.Module,
    groups: list[dict[str, Any]],
    x: Tensor,
    lengths: Tensor,
    steps: int,
    particles: int,
    lr: float,
    seeds: Sequence[Seed] | None,
    progress: Callable[[], object],
) -> None:
    """Optimise parameters of a guide that each belong to one sequence of a batch, (..., N, L) or (..., N, L, L) for
    matrices; each sequence keeps its best ones. Arguments as of `refine`; `groups` are the optimiser's.
    """
    seeds = [f"refine/{n}" for n in range(len(lengths))] if seeds is None else seeds
    free = [p for group in groups for p in group["params"]]
    with torch.enable_grad():
        objective = Objective(model, guide, "analytic", particles)
        optimizer = torch.optim.Adam(groups, lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

        def bound() -> Tensor:
            return estimate(model, guide, x, lengths, 4 * particles, chunk=particles, seeds=seeds).analytic

        best, kept = bound(), [p.detach().clone() for p in free]
        for step in range(1, steps + 1):
            optimizer.zero_grad(set_to_none=True)
            objective(x, lengths).loss.backward()
            optimizer.step()
            schedule.step()
            progress()
            if step == steps or step % max(1, steps // CHECKS) == 0:
                now = bound()
                better = now > best  # not where it is NaN
                best = torch.where(better, now, best)
                for best_values, p in zip(kept, free, strict=True):
                    by_sequence = better.reshape(-1, *[1] * (p.dim() - (2 if p.dim() > 2 else 1)))
                    best_values.copy_(torch.where(by_sequence, p.detach(), best_values))
        with torch.no_grad():
            for best_values, p in zip(kept, free, strict=True):
                p.copy_(best_values)


def remembers(guide: Guide, settings: GuideSettings, latents: Sequence[str]) -> bool:
    """Whether z_t depends on earlier z in the guide; only then does the refinement have matrices B_t.

    Args:
        guide: the guide.
        settings: its settings.
        latents: names of the model's latents.
    """
    parents = guide.parents(settings, latents)
    return any(parent.startswith("z[") for site_parents in parents.values() for parent in site_parents)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Disable gradients of the modules' parameters within the context."""
    was = {p: p.requires_grad for module in modules for p in module.parameters()}
    for p in was:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p, required in was.items():
            p.requires_grad_(required)


def _unmasked(distribution: Any) -> Any:
    """The base distribution inside masks and `Independent`."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution
