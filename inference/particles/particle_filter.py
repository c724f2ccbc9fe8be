r"""Sequential Monte Carlo with the guide as proposal: a likelihood estimate that does not degenerate with length.

At frame t each of K particles draws z_t from the guide and is weighted by

.. math:: w_t = \frac{p(x_t, z_t \mid x_{1:t-1}, z_{1:t-1})}{q(z_t \mid z_{1:t-1}, x)}, \qquad
    \hat p(x) = \prod_t \sum_k W_{t-1}^{(k)} w_t^{(k)},

with W_{t-1} the normalised weights so far. When the effective sample size is low, particles are resampled: ancestors
are drawn in proportion to W, and all weights are set to 1/K. :math:`\hat p(x)` is unbiased for any guide and K (Del
Moral, "Feynman-Kac formulae", 2004), so the mean of its logarithm is a lower bound on log p(x), below it by about half
its variance (Maddison et al., "Filtering variational objectives", 2017). Without resampling it is the
importance-weighted bound.

Steps run on the frame-by-frame interpreter, `models.core.time_axis.Markov`, so handlers act as in any other run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from dvae_pyro.errors import UserError
from guides.core.guide import Guide
from inference.handlers.given_noise import given_noise
from inference.handlers.noise import Seed, SequenceNoise
from inference.particles.log_weights import density, effective_sample_size
from inference.particles.resampling import SCHEMES, Uniforms, checks_each_frame, resample
from models.core.effects import Given, base_name
from models.core.time_axis import Carry, Causal, Markov
from models.dvae import DVAE, batch_sites

__all__ = ["Filtered", "smc"]


class Filtered(NamedTuple):
    """The result of a particle filter; zero in padded frames.

    Attributes:
        log_evidence: the estimate of log p(x), (N,).
        evidence: its increments, estimates of log p(x_t | x_{1:t-1}), (T, N); sums of them estimate log p(x_{1:t}).
        ess: effective sample size of the weights at each frame, before resampling, (T, N).
        resampled: whether a sequence was resampled after a frame, (T, N).
        log_weights: the normalised weights after each sequence's last frame, (K, N).
        ancestors: for each particle of frame t, its ancestor in frame t - 1, (T, K, N); empty with keep=False.
        latents: every particle's latents as drawn, (K, T, N, L), and outside time (K, 1, N, L); empty with keep=False.
    """

    log_evidence: Tensor
    evidence: Tensor
    ess: Tensor
    resampled: Tensor
    log_weights: Tensor
    ancestors: Tensor
    latents: dict[str, Tensor]

    def smoothed(self, draws: int) -> dict[str, Tensor]:
        """Draw latents from the filter's approximation of p(z_{1:T} | x_{1:T}): a final particle by its weight, and its
        ancestors back through time. (draws, T, N, L), and outside time (draws, 1, N, L).

        Early frames may have few distinct ancestors; use a large K if they matter.

        Raises:
            ValueError: if the filter did not keep the particles.
        """
        if not self.latents:
            raise ValueError("this filter kept no particles: run smc(..., keep=True)")
        at = torch.multinomial(self.log_weights.exp().t(), draws, replacement=True).t()  # (draws, N)
        lineage = [at]
        for ancestors in self.ancestors[1:].flip(0):
            lineage.append(ancestors.gather(0, lineage[-1]))
        lines = torch.stack(lineage[::-1], dim=1)[..., None]  # (draws, T, N, 1); roots outside time are frame 0's
        return {name: z.take_along_dim(lines[:, : z.shape[1]], 0) for name, z in self.latents.items()}


def smc(
    model: DVAE,
    guide: Guide,
    x: Tensor,
    lengths: Tensor,
    particles: int,
    *,
    threshold: float = 0.5,
    scheme: str = "systematic",
    seeds: Sequence[Seed] | None = None,
    keep: bool = True,
    scaled: bool = True,
    each_frame: Callable[[int, Tensor], object] | None = None,
) -> Filtered:
    """Run a particle filter over a batch; every sequence has its own weights and resampling.

    With gradients enabled, `Filtered.log_evidence` is differentiable in the weights; the gradient of the resampling
    step is omitted (as in Maddison et al.).

    Args:
        model: the generative model; it must have a step.
        guide: the inference model; it must have a step.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU. Weights do not change after the end of a sequence.
        particles: K.
        threshold: resample where the effective sample size is below `threshold` K: 0 never, 1 at every frame.
        scheme: the resampling scheme, see `inference.particles.resampling.resample`.
        seeds: a seed for each sequence: its noise and ancestors then do not depend on the batch
            (`inference.handlers.noise.SequenceNoise`). By default all are drawn from torch's generator.
        keep: whether to keep particles and ancestors, which `Filtered.smoothed` needs; at least K T N numbers.
        scaled: whether to include the scales of handlers (`inference.handlers.kl_scale`) in the weights.
        each_frame: called after each frame t with the normalised log-weights (K, N), before any resampling.

    Raises:
        UserError: for a model without a step.
        ValueError: unless K is at least 1, `threshold` between 0 and 1, and `scheme` known.
    """
    if not (model.stepwise and guide.stepwise):
        raise UserError(
            f"{type(model).__name__} with {type(guide).__name__} has no step: frames depend on later ones, or latents "
            "have several time scales, so it has no particle filter. Estimate its likelihood with iwae."
        )
    if particles < 1 or not 0.0 <= threshold <= 1.0 or scheme not in SCHEMES:
        raise ValueError(
            f"particles={particles}, threshold={threshold}, scheme='{scheme}': expected at least 1, a number from 0 to "
            f"1, and one of {', '.join(SCHEMES)}"
        )
    noise = None if seeds is None else SequenceNoise(lengths, seeds)
    with nullcontext() if noise is None else given_noise(noise), pyro.plate("particles", particles, dim=-3):
        steps = _Steps(model, guide, x, lengths)
        like, ends = steps.p.like, lengths.to(x.device)
        even = like.new_full((particles, len(lengths)), -math.log(particles))
        everyone = torch.arange(particles, device=like.device)[:, None].expand(-1, len(lengths))
        log_weights = even
        outputs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        ancestors: Tensor | None = None
        uniforms = Uniforms(1 if scheme == "systematic" else particles, steps.p.frames, lengths, noise, like.device)
        for t in range(steps.p.frames):
            log_weights = log_weights + steps.frame(t, ancestors, keep=keep, scaled=scaled)
            total = log_weights.logsumexp(0)
            log_weights = torch.where(total.isneginf(), even, log_weights - total)
            settled = log_weights.detach()
            if each_frame is not None:
                each_frame(t, settled)
            ess = effective_sample_size(settled)
            few = (ess < threshold * particles) & (t + 1 < ends)
            alive = t < ends
            before = everyone if ancestors is None else ancestors
            outputs.append((total.where(alive, 0.0), ess.where(alive, 0.0), few, before))
            ancestors = None
            if not checks_each_frame(like.device) or bool(few.any()):
                drawn = resample(settled, scheme, uniforms.of(few))
                ancestors = torch.where(few, drawn, everyone)
                log_weights = torch.where(few, even, log_weights)
    evidence, sizes, resampled, lineage = (torch.stack(part) for part in zip(*outputs, strict=True))
    latents = {name: torch.cat(values, dim=1) for name, values in steps.latents.items()}
    return Filtered(evidence.sum(0), evidence, sizes, resampled, log_weights, lineage if keep else lineage[:0], latents)


@dataclass
class _Lineage(Carry):
    """The carry of the particles between frames, and their ancestors.

    Attributes:
        wide: indices of recurrent states that differ between particles: (K, N, ...), not (N, ...).
        ancestors: the ancestors, (K, N), if particles were resampled after the previous frame.
        roots: for each particle, its ancestor in the first frame, (K, N); None before the first resampling.
    """

    wide: set[int] = field(default_factory=set)
    ancestors: Tensor | None = None
    roots: Tensor | None = None

    def go_on_from(self, ancestors: Tensor | None) -> None:
        """Select values and states of the ancestors; conditionals are selected on access."""
        self.ancestors = ancestors
        if ancestors is None:
            return
        self.roots = ancestors if self.roots is None else self.roots.gather(0, ancestors)
        self.values = {name: reindexed(value, ancestors) for name, value in self.values.items()}
        for index in self.wide:
            state = self.states[index]
            self.states[index] = tuple(s.take_along_dim(ancestors[(..., *[None] * (s.dim() - 2))], 0) for s in state)


def reindexed(v: Tensor, index: Tensor | None) -> Tensor:
    """Particles of v (K, T, N, D) selected by index (K, N); v (T, N, D), which all particles share, is unchanged."""
    return v if index is None or v.dim() < 4 or len(v) == 1 else v.take_along_dim(index[:, None, :, None], 0)


class _Particles(Markov):
    """A frame of all particles, with past values selected by ancestor.

    Latents outside time, and features computed from them for all frames, are not copied but selected by root.
    """

    carry: _Lineage

    def feature(self, v: Tensor) -> Tensor:
        return reindexed(super().feature(v), self.carry.roots)

    def once(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return reindexed(super().once(name, distribution), self.carry.roots)

    def shared(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        return reindexed(super().shared(name, distribution), self.carry.roots)

    def expected(self, name: str) -> Tensor:
        return reindexed(super().expected(name), self.carry.ancestors)

    def recur(self, net: Causal, *inputs: Tensor, lag: bool = False) -> Tensor:
        index = self._recurrences
        out = super().recur(net, *inputs, lag=lag)
        if out.dim() > 3 and index in self.carry.states:
            self.carry.wide.add(index)
        return out


class _Steps:
    """A model and a guide that run frame by frame together, with particles at dim -3."""

    def __init__(self, model: DVAE, guide: Guide, x: Tensor, lengths: Tensor) -> None:
        self.model, self.guide = model, guide
        self.p = batch_sites(model, x, lengths)
        self.q = batch_sites(guide, x, lengths)
        self.p.step = model.step
        self.carries = _Lineage(), _Lineage()
        self.latents: dict[str, list[Tensor]] = {}
        with poutine.trace() as encoding:
            self.encoded = guide.encode(self.q, lengths)
        self.outside = encoding.trace

    def frame(self, t: int, ancestors: Tensor | None, *, keep: bool, scaled: bool) -> Tensor:
        """Continue from the ancestors, draw the latents of frame t, and return its log-weights, (K, N)."""
        for carry in self.carries:
            carry.go_on_from(ancestors)
        of_p, of_q = self.carries
        with poutine.trace() as drawing:
            self.guide.step(_Particles(self.q, t, of_q), self.encoded)
        drawn = [drawing.trace] if t else [self.outside, drawing.trace]
        values = {name: v for trace in drawn for name, v in _values(trace).items()}
        with poutine.trace() as scoring, Given(values):
            self.model.step(_Particles(self.p, t, of_p))
        if keep:
            for name, value in values.items():
                self.latents.setdefault(base_name(name), []).append(value.detach())
        for trace in (scoring.trace, *drawn):
            trace.compute_log_prob()
        return density(scoring.trace, scaled=scaled) - density(*drawn, scaled=scaled)


def _values(trace: Trace) -> dict[str, Tensor]:
    """The values of the sample sites of a trace, without plates."""
    nodes: Mapping[str, Any] = trace.nodes
    return {name: nodes[name]["value"] for name in trace.stochastic_nodes if not site_is_subsample(nodes[name])}
