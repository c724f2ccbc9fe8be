r"""A state space model with mixed linear dynamics, its states integrated out by the Kalman filter.

With weights :math:`\alpha_t` of K modes, :math:`A_t = \sum_k \alpha_t^{(k)} A^{(k)}`, :math:`C_t` likewise, and

.. math::
    z_1 \sim N(0, v I), \quad z_t \mid z_{t-1} \sim N(A_t z_{t-1}, q I), \quad a_t \mid z_t \sim N(C_t z_t, r I),
    \quad \alpha_t = \mathrm{softmax}(W\,\mathrm{LSTM}(a_{0:t-1})),

(Fraccaro, Kamronn, Paquet & Winther, "A disentangled recognition and nonlinear dynamics model for unsupervised
learning", 2017, state space model and dynamics parameter network; a_0 is learned), the states given a are Gaussian. So

.. math:: p(a_{1:T}) = \prod_t N(a_t; C_t m_t, C_t P_t C_t^\top + r I), \qquad z_t \mid a_{1:t-1} \sim N(m_t, P_t),

exactly. Letters: L the dimension of z, D that of a; B sequences, particles included.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from models.nn.layers import Recurrent

__all__ = ["KalmanPredictor", "ModeWeights", "Moments", "joseph", "smooth"]


class Moments(NamedTuple):
    """The means (..., L) and covariances (..., L, L) of Gaussian states."""

    mean: Tensor
    covariance: Tensor


class ModeWeights(nn.Module):
    r"""alpha_t = softmax(W LSTM(a_{0:t-1})), a `models.core.time_axis.Causal` network of a_{t-1}; a_0 is learned.

    Args:
        a_dim: D.
        modes: K.
        width: width of the LSTM.
    """

    def __init__(self, a_dim: int, modes: int, width: int) -> None:
        super().__init__()
        self.out_dim = modes
        self.a_0 = nn.Parameter(torch.zeros(a_dim))
        self.lstm = Recurrent(a_dim, width)
        self.head = nn.Linear(width, modes)

    def forward(self, u: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The weights (..., T, N, K) from the frame before each, u (..., T, N, D), and the LSTM's last state."""
        if state is None:
            first = self.a_0.expand_as(u[..., :1, :, :])
            u = torch.cat([first, u[..., 1:, :, :]], dim=-3)
        h, after = self.lstm(u, state)
        return softmax(self.head(h), dim=-1), after


class KalmanPredictor(nn.Module):
    r"""p(a_t | a_{1:t-1}) as a `models.core.time_axis.Causal` network of a_{t-1}.

    Its output is the concatenation of the mean (D) and the lower Cholesky factor (D * D) of that Gaussian. No
    observation precedes the first frame; there the input of the LSTM is a_0.

    Args:
        a_dim: D.
        z_dim: L.
        modes: K.
        width: width of the LSTM.
        transition: q.
        emission: r.
        initial: v.
        spread: standard deviation of the initial entries of C, and of those of A around the identity.
    """

    def __init__(
        self,
        a_dim: int,
        z_dim: int,
        modes: int,
        width: int,
        *,
        transition: float = 0.08,
        emission: float = 0.03,
        initial: float = 20.0,
        spread: float = 0.05,
    ) -> None:
        super().__init__()
        self.a_dim, self.z_dim, self.modes = a_dim, z_dim, modes
        self.transition, self.emission, self.initial = transition, emission, initial
        self.out_dim = a_dim + a_dim * a_dim
        self.A = nn.Parameter(torch.eye(z_dim) + spread * torch.randn(modes, z_dim, z_dim))
        self.C = nn.Parameter(spread * torch.randn(modes, a_dim, z_dim))
        self.weights = ModeWeights(a_dim, modes, width)

    def forward(self, u: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs (..., T, N, D + D * D) from the frame before each, u (..., T, N, D), and the last state.

        The state is h and c of the LSTM and, of the last frame, m_t, P_t and C_t, flattened.
        """
        *leading, frames, sequences, _ = u.shape
        batch = (*leading, sequences)
        alpha, weights_after = self.weights(u, None if state is None else state[:2])
        A, C = (m.movedim(-4, 0).flatten(1, -3) for m in self.matrices(alpha))
        last = None
        if state is not None:
            mean, covariance, C_last = (s.expand(*batch, s.shape[-1]).reshape(A.shape[1], -1) for s in state[2:])
            moments = Moments(mean, covariance.unflatten(-1, (self.z_dim, -1)))
            last = (moments, C_last.unflatten(-1, (self.a_dim, -1)))
        predicted, factors = self._predict(u.movedim(-3, 0).reshape(frames, -1, self.a_dim), A, C, last)
        loc = (C @ torch.stack([p.mean for p in predicted])[..., None])[..., 0]
        outputs = torch.cat([loc, torch.stack(factors).flatten(-2)], dim=-1)
        kalman_after = (predicted[-1].mean, predicted[-1].covariance.flatten(-2), C[-1].flatten(-2))
        outputs = outputs.reshape(frames, *batch, self.out_dim).movedim(0, -3)
        return outputs, (*weights_after, *(s.reshape(*batch, -1) for s in kalman_after))

    def matrices(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """A_t (..., L, L) and C_t (..., D, L) from the weights of the modes (..., K)."""
        A = (alpha @ self.A.flatten(1)).unflatten(-1, (self.z_dim, self.z_dim))
        C = (alpha @ self.C.flatten(1)).unflatten(-1, (self.a_dim, self.z_dim))
        return A, C

    def _predict(
        self, before: Tensor, A: Tensor, C: Tensor, last: tuple[Moments, Tensor] | None
    ) -> tuple[list[Moments], list[Tensor]]:
        """The moments of z_t given a_{1:t-1} for all frames, and the Cholesky factors of the covariance of a_t."""
        predicted: list[Moments] = []
        factors: list[Tensor] = []
        noise = self.emission * torch.eye(self.a_dim, dtype=A.dtype, device=A.device)
        # Slices by unbind: the backward pass of A[t] would fill zeros for all frames at each.
        for a, A_t, C_t in zip(before.unbind(), A.unbind(), C.unbind(), strict=True):
            if last is None:
                now = self.initial_moments(A_t)
            else:
                moments, C_last = last
                updated = joseph(moments, C_last, a, self.emission, factors[-1] if factors else None)
                now = self.advance(updated, A_t)
            predicted.append(now)
            factors.append(torch.linalg.cholesky(C_t @ now.covariance @ C_t.mT + noise))
            last = (now, C_t)
        return predicted, factors

    def initial_moments(self, like: Tensor) -> Moments:
        """The moments of z_1 ~ N(0, v I) for each matrix of a batch (B, L, L)."""
        eye = torch.eye(self.z_dim, dtype=like.dtype, device=like.device)
        return Moments(like.new_zeros(*like.shape[:-1]), (self.initial * eye).expand_as(like))

    def advance(self, moments: Moments, A: Tensor) -> Moments:
        """The moments of z_t = A_t z_{t-1} + noise from those of z_{t-1}."""
        mean = (A @ moments.mean[..., None])[..., 0]
        noise = self.transition * torch.eye(self.z_dim, dtype=A.dtype, device=A.device)
        return Moments(mean, A @ moments.covariance @ A.mT + noise)


def joseph(moments: Moments, C: Tensor, a: Tensor, emission: float, factor: Tensor | None = None) -> Moments:
    r"""Condition z_t on a_t by Joseph's form, (I - K C) P (I - K C)' + r K K', positive definite also in float32.

    Args:
        moments: moments of z_t given a_{1:t-1}.
        C: C_t (B, D, L).
        a: a_t (B, D).
        emission: r.
        factor: the Cholesky factor of C P C' + r I, if it is known.

    Returns:
        The moments of z_t given a_{1:t}.
    """
    mean, P = moments
    CP = C @ P
    if factor is None:
        factor = torch.linalg.cholesky(CP @ C.mT + emission * torch.eye(C.shape[-2], dtype=C.dtype, device=C.device))
    K = torch.cholesky_solve(CP, factor).mT
    mean = mean + (K @ (a - (C @ mean[..., None])[..., 0])[..., None])[..., 0]
    kept = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device) - K @ C
    return Moments(mean, kept @ P @ kept.mT + emission * (K @ K.mT))


@torch.no_grad()
def smooth(net: KalmanPredictor, a: Tensor, present: Tensor | None = None) -> tuple[Tensor, Moments]:
    r"""The exact moments of z_t | a_{1:T} (Rauch, Tung & Striebel), and a with its missing frames filled.

    At a missing frame the filter makes no update, and the LSTM of alpha takes the predicted mean C_t m_t in place of
    a_t, as in the public code; afterwards the frame is filled with the smoothed mean of C_t z_t. As alpha depends on a,
    the moments are exact only if no frame is missing.

    Args:
        net: the dynamics.
        a: (T, B, D).
        present: which frames are observed, (T, B) bool; None means all.

    Returns:
        a, missing frames filled, and the moments of z, (T, B, L) and (T, B, L, L).
    """
    present = torch.ones(a.shape[:2], dtype=torch.bool, device=a.device) if present is None else present
    filled, hidden = a.clone(), None
    before = net.weights.a_0.expand_as(a[:1])
    predictions: list[Moments] = []
    filtered: list[Moments] = []
    As: list[Tensor] = []
    Cs: list[Tensor] = []
    for t in range(len(a)):
        alpha, hidden = net.weights(before, hidden)
        A, C = net.matrices(alpha[0])
        now = net.advance(filtered[-1], A) if filtered else net.initial_moments(A)
        updated, there = joseph(now, C, a[t], net.emission), present[t]
        expected = (C @ now.mean[..., None])[..., 0]
        filled[t] = torch.where(there[:, None], a[t], expected)
        mean = torch.where(there[:, None], updated.mean, now.mean)
        covariance = torch.where(there[:, None, None], updated.covariance, now.covariance)
        predictions, filtered = [*predictions, now], [*filtered, Moments(mean, covariance)]
        As, Cs, before = [*As, A], [*Cs, C], filled[t : t + 1]
    smoothed = [filtered[-1]]
    for t in range(len(a) - 2, -1, -1):
        P, ahead, after = filtered[t].covariance, predictions[t + 1], smoothed[0]
        J = torch.linalg.solve(ahead.covariance, As[t + 1] @ P).mT
        mean = filtered[t].mean + (J @ (after.mean - ahead.mean)[..., None])[..., 0]
        smoothed.insert(0, Moments(mean, P + J @ (after.covariance - ahead.covariance) @ J.mT))
    moments = Moments(torch.stack([m.mean for m in smoothed]), torch.stack([m.covariance for m in smoothed]))
    expected = (torch.stack(Cs) @ moments.mean[..., None])[..., 0]
    return torch.where(present[..., None], a, expected), moments
