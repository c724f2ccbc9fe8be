r"""Observations: handlers around the model's site ``x``, which turn a prior of clean speech into a model of noisy data.

In a DVAE with a power spectrum, :math:`|s_{ft}|^2` of clean speech is exponential with mean :math:`v_{ft}(z)`, because
:math:`s_{ft} \sim N_c(0, v_{ft}(z))`. The observed y is a sum of independent complex Gaussians, so

.. math:: |y_{ft}|^2 \mid z \sim \mathrm{Exp}\Big(\sum_k g_{kt} v_{kft}(z) + n_{ft}\Big)

with the signals :math:`g_k v_k` and the noise n. ``with observation: objective(y, lengths)`` computes the bound on
log p(y) for any model, guide and objective: only the distribution of x is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor
from torch.distributions import constraints

from dvae_pyro.errors import UserError
from models.core.effects import base_name
from models.core.sites import masked
from models.likelihoods.power_spectrum import FlooredSpectrum, PowerSpectrum

__all__ = ["ObservedPower", "Observation", "clean_variances"]

Shape = Size | list[int] | tuple[int, ...]
_SPECTRUM = constraints.independent(constraints.nonnegative, 1)


class ObservedPower(dist.TorchDistribution):
    r"""The power of a sum of independent complex Gaussians: :math:`y_f \sim \mathrm{Exp}(\sum_k u_{kf} + n_f)`.

    .. math:: \log p(y) = -\sum_f \log x_f + y_f / x_f, \qquad x_f = \sum_k u_{kf} + n_f

    over the bins f that are present (Févotte, Bertin & Durrieu, "Nonnegative matrix factorization with the
    Itakura-Saito divergence", 2009, Sec. 2.2).

    Args:
        signals: the variance of each source, :math:`u_k = g_k v_k`, each (..., T, N, F).
        noise: n, the variance of the noise, (..., T, N, F), or one number.
        present: whether each bin was observed, bool (T, N, F); None: all.

    Example:
        >>> speech, noise = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
        >>> ObservedPower([speech], noise).wiener(0)
        tensor([[0.7500, 0.5000]])
    """

    arg_constraints = {"mean": _SPECTRUM}
    support = _SPECTRUM

    def __init__(
        self,
        signals: Sequence[Tensor],
        noise: Tensor | float,
        present: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.signals, self.present = tuple(signals), present
        total = self.signals[0] + noise
        for signal in self.signals[1:]:
            total = total + signal
        self.total, self.noise = total, noise
        super().__init__(total.shape[:-1], total.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """x, the variance of y."""
        return self.total

    def wiener(self, source: int = 0) -> Tensor:
        r"""The Wiener gain of a source, u_k / x: E[sqrt(g_k) s_k | y, z] = gain y, (..., T, N, F)."""
        return self.signals[source] / self.total

    def expand(self, batch_shape: Shape, _instance: object = None) -> ObservedPower:
        shape = (*batch_shape, *self.event_shape)
        signals = [signal.expand(shape) for signal in self.signals]
        noise = self.noise.expand(shape) if isinstance(self.noise, Tensor) else self.noise
        return ObservedPower(signals, noise, self.present, validate_args=False)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        return torch.empty_like(self.total.expand(shape)).exponential_() * self.total

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        cost = self.total.log() + value / self.total
        return -(cost if self.present is None else cost.masked_fill(~self.present, 0.0)).sum(-1)


def clean_variances(distribution: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The model's variance v (..., T, N, F) of each clean source, and the mask (T, N) of its frames.

    Raises:
        UserError: for a likelihood other than power spectra.
    """
    mask = None
    while not isinstance(distribution, FlooredSpectrum) and hasattr(distribution, "base_dist"):
        mask = getattr(distribution, "_mask", mask)
        distribution = distribution.base_dist
    if isinstance(distribution, ObservedPower):
        return distribution.signals, mask
    if isinstance(distribution, FlooredSpectrum):
        return (distribution.bin_variances(),), mask
    if not isinstance(distribution, PowerSpectrum):
        raise UserError(
            f"the prior's likelihood is a {type(distribution).__name__}; an observation needs the variance of an STFT. "
            "Use a run with model.likelihood=power_spectrum and data.frontend=stft."
        )
    return (distribution.mean,), mask


class Observation(Messenger):
    """Replace the distribution of site x by that of the observed data, p(y | z), defined by `likelihood` of a subclass.

    It works under every interpreter of the time axis. Conditionals on past x still depend on clean speech, the model's
    own mean of x (`inference.handlers.free_running`).

    Attributes:
        distribution: the distribution of the last run, differentiable.
        clean: v, the variances of clean sources in that run.
        learns: names of the parameters that are updated in a run; empty by default.
        framewise: whether y_t depends on no other frame of clean speech.
    """

    distribution: ObservedPower
    clean: tuple[Tensor, ...]
    learns: str = ""
    framewise = True

    def likelihood(self, sources: Sequence[Tensor], y: Tensor, mask: Tensor | None, frames: slice) -> ObservedPower:
        """The distribution of y in some frames.

        Args:
            sources: v, the model's variance of each clean source in these frames, (..., T, N, F); mostly one source.
            y: the observed power, (T, N, F), zero in padded frames.
            mask: true for real frames, (T, N); None: all are real.
            frames: the position of these frames in the sequences.
        """
        raise NotImplementedError

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if base_name(name) != "x" or not msg["is_observed"]:
            return
        t = name[2:]  # the frame of site x_12 in a frame-by-frame run
        sources, mask = clean_variances(msg["fn"])
        self.clean = sources
        frames = slice(int(t), int(t) + 1) if t else slice(None)
        self.distribution = self.likelihood(sources, msg["value"], mask, frames)
        msg["fn"] = masked(self.distribution, mask)
