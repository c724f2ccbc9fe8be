r"""Free bits: a KL below a threshold is not penalised, so that latents do not collapse early in training.

For a group g of elements of a latent's KL, threshold \lambda, and sg the stop-gradient (Kingma et al., "Improved
variational inference with inverse autoregressive flow", 2016; linear: Andersson et al., 2021, appendix A),

.. math:: \mathrm{linear:}\; \min(1, \mathrm{sg}(KL_g) / \lambda)\, KL_g, \qquad
    \mathrm{constant:}\; \max(KL_g, \lambda).

Both are implemented as weights on the elements of a latent's log-density, in model and guide. The weights of constant
are 0 and 1; the constant \lambda, which has no gradient, is omitted from the loss.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

__all__ = ["GROUPINGS", "MODES", "free_bits", "unweighted"]

GROUPINGS: dict[str, tuple[int, ...]] = {"element": (), "channel": (-1,), "sequence": (-3,), "layer": (-3, -1)}
"""By name, the dimensions of (..., T, N, L) that the KL is summed over before the threshold is applied."""
MODES = ("linear", "constant")
LEAST = 1e-8


class _Pair:
    """The conditionals of a latent in guide and model, and the weights that follow from both."""

    def __init__(self, handler: free_bits) -> None:
        self.handler = handler
        self.seen: list[Any] = []
        self._weight: Tensor | None = None

    def weight(self) -> Tensor:
        if len(self.seen) != 2:
            raise ValueError(
                "free bits need the conditionals of guide and model: compute log-densities after running both"
            )
        if self._weight is None:
            with torch.no_grad():
                q, p, mask = self.seen[0][0], self.seen[1][0], self.seen[1][1]
                kl = kl_divergence(q.base_dist, p.base_dist)
                group = kl if mask is None else kl * mask[..., None]
                summed = GROUPINGS[self.handler.grouping]
                if kl.dim() < 3:  # outside time: (..., N, L)
                    summed = tuple(dim for dim in summed if dim != -3)
                group = group.sum(summed, keepdim=True) if summed else group
                self._weight = self.handler.weight_of(group).expand_as(kl)
        return self._weight


class _Weighted(dist.TorchDistribution):
    """A diagonal Gaussian with weights on the elements of its log-density."""

    arg_constraints: dict[str, Any] = {}
    has_rsample = True

    def __init__(self, plain: Any, pair: _Pair) -> None:
        self.plain, self.pair = plain, pair
        super().__init__(plain.batch_shape, plain.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.plain.support

    @property
    def mean(self) -> Tensor:
        mean: Tensor = self.plain.mean
        return mean

    @property
    def variance(self) -> Tensor:
        variance: Tensor = self.plain.variance
        return variance

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        drawn: Tensor = self.plain.rsample(sample_shape)
        return drawn

    def log_prob(self, value: Tensor) -> Tensor:
        density: Tensor = self.plain.base_dist.log_prob(value) * self.pair.weight()
        return density.sum(-1)


@register_kl(_Weighted, _Weighted)  # type: ignore[untyped-decorator]  # torch's
def _kl(q: _Weighted, p: _Weighted) -> Tensor:
    return (kl_divergence(q.plain.base_dist, p.plain.base_dist) * p.pair.weight()).sum(-1)


def unweighted(distribution: Any) -> Any:
    """A conditional without the weights of `free_bits`."""
    if isinstance(distribution, MaskedDistribution):
        return MaskedDistribution(unweighted(distribution.base_dist), distribution._mask)
    return distribution.plain if isinstance(distribution, _Weighted) else distribution


class free_bits(Messenger):
    """Down-weight latents whose KL is below a threshold; the reported bound is not weighted.

    A latent that is a point mass in the guide is not weighted.

    The handler encloses an objective: it expects the guide's conditional of a latent first, then the model's.

    Args:
        threshold: lambda, in nats; 0 has no effect.
        mode: ``"linear"`` or ``"constant"``.
        grouping: the groups of elements that the threshold applies to, a key of `GROUPINGS`.

    Raises:
        ValueError: for a negative threshold, or another `mode` or `grouping`; and for a latent that is not a diagonal
            Gaussian.
    """

    def __init__(self, threshold: float, mode: str = "linear", grouping: str = "element") -> None:
        super().__init__()
        if not threshold >= 0.0:
            raise ValueError(f"threshold = {threshold}: expected at least 0")
        for word, choices in ((mode, MODES), (grouping, GROUPINGS)):
            if word not in choices:
                raise ValueError(f"'{word}': expected one of {', '.join(choices)}")
        self.threshold, self.mode, self.grouping = threshold, mode, grouping
        self._pairs: dict[str, _Pair] = {}
        self._points: set[str] = set()

    def __enter__(self) -> Any:
        self._pairs, self._points = {}, set()
        return super().__enter__()

    def weight_of(self, kl: Tensor) -> Tensor:
        """The weight for the KL of a group, elementwise."""
        if self.mode == "constant":
            return (kl >= self.threshold).to(kl.dtype)
        return (kl / self.threshold).clamp(LEAST, 1.0) if self.threshold > 0 else torch.ones_like(kl)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or "anticipated" in msg or type(msg["fn"]).__name__ == "_Subsample":
            return
        conditional, mask = msg["fn"], None
        if isinstance(conditional, MaskedDistribution):
            conditional, mask = conditional.base_dist, conditional._mask
        if isinstance(conditional, dist.Delta):
            self._points.add(msg["name"])
        if msg["name"] in self._points:
            return
        if not isinstance(conditional, dist.Independent) or not isinstance(conditional.base_dist, dist.Normal):
            raise ValueError(f"free bits need Gaussian latents, but '{msg['name']}' is a {type(conditional).__name__}")
        pair = self._pairs.setdefault(msg["name"], _Pair(self))
        pair.seen.append((conditional, mask))
        weighted = _Weighted(conditional, pair)
        msg["fn"] = weighted if mask is None else MaskedDistribution(weighted, mask)
