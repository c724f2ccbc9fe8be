r"""FHVAE's discriminative objective (Hsu, Zhang & Glass, 2017, Eq. 3), as a handler around the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import pyro
import pyro.poutine as poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from models.core.effects import base_name

if TYPE_CHECKING:
    from inference.settings.tree import DiscriminativeSettings

__all__ = ["discriminative", "log_p_sequence", "discriminative_handler"]


def log_p_sequence(m: Tensor, candidates: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    r"""log p(i | m), the log-probability that a segment belongs to sequence i, with a uniform prior on C candidates:

    .. math:: \log p(i | m) = \log N(m; \mu_2^{(i)}, \sigma^2) - \log \sum_j N(m; \mu_2^{(j)}, \sigma^2).

    Terms that all candidates share cancel: logits are (m \mu_j - \mu_j^2 / 2) / \sigma^2, one matrix product.

    Args:
        m: the segments' z2, (..., N, L).
        candidates: \mu_2 of each candidate, (C, L).
        target: the index of the segment's sequence among the candidates, (N,).
        variance: \sigma^2, (L,).

    Returns:
        (..., N).
    """
    scaled = candidates / variance
    logits = m @ scaled.t() - 0.5 * (scaled * candidates).sum(-1)
    where = target[:, None].expand(*logits.shape[:-1], 1)
    return logits.gather(-1, where)[..., 0] - logits.logsumexp(-1)


class discriminative(Messenger):
    r"""Add :math:`\alpha \log p(i | z_2^{(i, n)})` to the objective: a factor after the model's site ``z2``.

    The guide's site ``mu2`` provides the candidate sequences (all of the table, or those of
    `train.discriminative.sequences`); the guide's ``z2`` is recorded before the model's. The reported bound does not
    include the factor.

    Args:
        alpha: the weight, above 0.
        latents: the ``"mean"`` of q(z2 | x), as in the public code, or the ``"sample"``.

    Raises:
        ValueError: for another `alpha` or `latents`; and if the guide has no site ``mu2`` with candidates.
    """

    def __init__(self, alpha: float, latents: str = "mean") -> None:
        super().__init__()
        if not alpha > 0.0 or latents not in ("mean", "sample"):
            raise ValueError(f"alpha={alpha}, latents='{latents}': expected a number above 0, and mean or sample")
        self.alpha = alpha
        self.latents = latents
        self._candidates: Callable[[], Any] | None = None
        self._drawn: Tensor | None = None

    def __exit__(self, *args: Any) -> None:
        self._candidates = self._drawn = None
        super().__exit__(*args)

    def _pyro_post_sample(self, msg: Any) -> None:
        name = base_name(msg["name"])
        if name == "mu2" and self._drawn is None:
            self._candidates = msg["infer"].get("candidates")
        elif name == "z2" and self._drawn is None:
            self._drawn = msg["fn"].mean if self.latents == "mean" else msg["value"]
        elif name == "z2" and self._drawn is not None:
            drawn, get_candidates = self._drawn, self._candidates
            self._drawn = self._candidates = None
            if get_candidates is None:
                raise ValueError("the guide has no site 'mu2' with infer={'candidates': ...}, which FHVAE's guide has")
            candidates = get_candidates()
            variance = msg["fn"].variance.flatten(0, -2)[0]
            with poutine.scale(scale=self.alpha):
                pyro.factor("discriminative", log_p_sequence(drawn, candidates.values, candidates.target, variance))


def discriminative_handler(settings: DiscriminativeSettings) -> AbstractContextManager[Any]:
    """The handler for training; a null context where alpha is 0."""
    return discriminative(settings.alpha, settings.latents) if settings.alpha > 0.0 else nullcontext()
