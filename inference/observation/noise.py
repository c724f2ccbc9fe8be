r"""Additive noise whose variance is a nonnegative matrix product: :math:`y_{ft} = \sqrt{g_t}\, s_{ft} + n_{ft}`.

.. math:: s_{ft} \mid z \sim N_c(0, v_{ft}(z)), \qquad n_{ft} \sim N_c(0, (WH)_{ft}), \qquad
    |y_{ft}|^2 \mid z \sim \mathrm{Exp}(g_t v_{ft}(z) + (WH)_{ft})

(Leglaive, Girin & Horaud, "A variance modeling framework based on variational autoencoders for speech enhancement",
2018, Eqs. 3-6; Bie et al., "Unsupervised speech enhancement using dynamical variational autoencoders", 2022.) W, H and
g have no prior: they maximise the likelihood by multiplicative updates, between or within the steps of inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inference.observation.base import Observation, ObservedPower

__all__ = ["Noise", "NoiseParameters", "initial_noise"]


class NoiseParameters(NamedTuple):
    """The parameters of the noise of each sequence.

    Attributes:
        w: W, spectra (N, F, K).
        h: H, their activations (N, K, T).
        g: the gain of each of S sources, (N, S, T).
    """

    w: Tensor
    h: Tensor
    g: Tensor

    def variance(self) -> Tensor:
        """WH of all frames, (T, N, F)."""
        return (self.h.mT @ self.w.mT).transpose(0, 1)

    def gains(self) -> Tensor:
        """g of all frames, (S, T, N, 1)."""
        return self.g.permute(1, 2, 0)[..., None]

    def of(self, frames: slice) -> NoiseParameters:
        """The parameters of some frames."""
        return NoiseParameters(self.w, self.h[..., frames], self.g[..., frames])


def initial_noise(
    frames: int, sequences: int, bins: int, rank: int, like: Tensor, *, sources: int = 1, seed: int = 0
) -> NoiseParameters:
    """Initial parameters: W and H drawn from [0, 1), equal for all sequences and independent of the batch, and g = 1.

    With several sources g is drawn from [0.5, 1.5): with equal gains, two sources with the same prior would stay equal.

    Args:
        frames: T of the batch.
        sequences: N.
        bins: F.
        rank: K.
        like: a tensor with their dtype and device.
        sources: S.
        seed: the seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(bins, rank, generator=generator, dtype=torch.float64)
    h = torch.rand(frames, rank, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(torch.float32).eps
    w, h = (v.clamp_min(tiny).to(like)[None].repeat(sequences, 1, 1) for v in (w, h))
    g = like.new_ones(sequences, sources, frames)
    if sources > 1:
        drawn = torch.rand(frames, sources, generator=generator, dtype=torch.float64).t() + 0.5
        g = drawn.to(like).expand(sequences, -1, -1).clone()
    return NoiseParameters(w, h.mT, g)


class Noise(Observation):
    r"""Speech in noise, y = sqrt(g) s + n; or several sources and noise, :math:`y = \sum_k \sqrt{g_k} s_k + n`.

    If it `learns`, each run of the model takes one multiplicative update of each of W, H and g at the variance v of
    that run, before the density is computed; no update decreases the likelihood (Févotte & Idier, "Algorithms for
    nonnegative matrix factorization with the beta-divergence", 2011, Sec. 4.2, exponent 1/2):

    .. math:: W \leftarrow W \odot \Big(\frac{(y \odot x^{-2}) H'}{x^{-1} H'}\Big)^{1/2}, \quad
        H \leftarrow H \odot \Big(\frac{W' (y \odot x^{-2})}{W' x^{-1}}\Big)^{1/2}, \quad
        g_t \leftarrow g_t \Big(\frac{\sum_f y v x^{-2}}{\sum_f v x^{-1}}\Big)^{1/2}, \qquad x = g v + WH,

    with x recomputed after each update; sums also run over the draws of z, and columns of W are scaled to a sum of one.
    The loop "run, gradient step, run" is thus expectation-maximisation with this handler as M-step.

    Args:
        parameters: the initial W, H and g; the attribute `parameters` has the current ones.
        learns: which of ``"w"``, ``"h"``, ``"g"`` are updated in a run.
        floor: added to the noise variance, so that the density is bounded in digital silence.
        shared: whether all sequences of the batch have the same noise, with one W updated for them together.
        present: whether each bin was observed, bool (T, N, F); None: all (`inference.observation.mask`).
    """

    def __init__(
        self,
        parameters: NoiseParameters,
        learns: str = "",
        floor: float = 0.0,
        *,
        shared: bool = False,
        present: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.parameters = parameters
        self.learns = learns
        self.floor = floor
        self.shared = shared
        self.present = present

    def likelihood(self, sources: Sequence[Tensor], y: Tensor, mask: Tensor | None, frames: slice) -> ObservedPower:
        present = None if self.present is None else self.present[frames]
        if self.learns:
            self._update([v.detach() for v in sources], y, mask, present, frames)
        here = self.parameters.of(frames)
        signals = [g * v for g, v in zip(here.gains(), sources, strict=True)]
        return ObservedPower(signals, here.variance() + self.floor, present)

    @torch.no_grad()
    def _update(
        self, sources: Sequence[Tensor], y: Tensor, mask: Tensor | None, present: Tensor | None, frames: slice
    ) -> None:
        """One update of each of W, H and g, from v (..., T, N, F) of each source and y (T, N, F)."""
        w, h, g = self.parameters.of(frames)
        draws = [v.reshape(-1, *v.shape[-3:]) for v in sources]
        counts = present if mask is None else mask[..., None] if present is None else present & mask[..., None]
        real = None if counts is None else counts.to(y)

        def parts() -> tuple[Tensor, Tensor]:
            """1 / x of each draw, 0 in bins that were not observed, and y / x^2, (R, T, N, F)."""
            here = NoiseParameters(w, h, g)
            x = here.variance() + self.floor
            for gain, v in zip(here.gains(), draws, strict=True):
                x = torch.addcmul(x, gain, v)
            inverse = x.reciprocal_() if real is None else x.reciprocal_().mul_(real)
            return inverse, (inverse * inverse).mul_(y)

        if "w" in self.learns:
            inverse, over = parts()
            up, down = (u.sum(0).permute(1, 2, 0) @ h.mT for u in (over, inverse))
            if self.shared:
                up, down = (u.sum(0, keepdim=True) for u in (up, down))
            w = w * _ratio(up, down)
        if "h" in self.learns:
            inverse, over = parts()
            h = h * _ratio(*(w.mT @ u.sum(0).permute(1, 2, 0) for u in (over, inverse)))
        if "w" in self.learns:
            scale = w.sum(1, keepdim=True)
            w, h = w / scale, h * scale.mT
        if "g" in self.learns:
            inverse, over = parts()
            ratios = [_ratio((v * over).sum((0, -1)), (v * inverse).sum((0, -1))).t() for v in draws]
            g = g * torch.stack(ratios, dim=1)
        if frames != slice(None):
            h, g = (_placed(p, whole, frames) for p, whole in ((h, self.parameters.h), (g, self.parameters.g)))
        self.parameters = NoiseParameters(w, h, g)


def _ratio(up: Tensor, down: Tensor) -> Tensor:
    """(up / down)^(1/2), and 1 where `down` is 0, as in padded frames."""
    return torch.where(down > 0, up / down, 1.0).sqrt()


def _placed(part: Tensor, values: Tensor, frames: slice) -> Tensor:
    values = values.clone()
    values[..., frames] = part
    return values
