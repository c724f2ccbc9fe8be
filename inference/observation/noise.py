r"""Additive noise whose variance is a nonnegative matrix product: :math:`y_{ft} = \sqrt{g_t}\, s_{ft} + n_{ft}`.

.. math:: s_{ft} \mid z \sim N_c(0, v_{ft}(z)), \qquad n_{ft} \sim N_c(0, (WH)_{ft}), \qquad
    |y_{ft}|^2 \mid z \sim \mathrm{Exp}(g_t v_{ft}(z) + (WH)_{ft})

(Leglaive, Girin & Horaud, "A variance modeling framework based on variational autoencoders for speech enhancement",
2018, Eqs. 3-6; Bie et al., "Unsupervised speech enhancement using dynamical variational autoencoders", 2022.) W, H and
g have no prior: they maximise the likelihood by multiplicative updates, between or within the steps of inference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from inference.observation.base import Heard, Observation

__all__ = ["Noise", "NoiseParameters", "initial_noise"]


class NoiseParameters(NamedTuple):
    """What is unknown of the noise of each sequence.

    Attributes:
        w: W, spectra (N, F, K).
        h: H, their activations (N, K, T).
        g: the gain of speech, (N, T).
    """

    w: Tensor
    h: Tensor
    g: Tensor

    def variance(self) -> Tensor:
        """WH of all frames, (T, N, F)."""
        return (self.h.mT @ self.w.mT).transpose(0, 1)

    def gain(self) -> Tensor:
        """g of all frames, (T, N, 1)."""
        return self.g.t()[..., None]


def initial_noise(frames: int, sequences: int, bins: int, rank: int, like: Tensor, seed: int = 0) -> NoiseParameters:
    """W and H drawn from [0, 1), the same for each sequence whatever it is batched with, and g = 1.

    Args:
        frames: T of the batch.
        sequences: N.
        bins: F.
        rank: K.
        like: a tensor whose type and device they have.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(bins, rank, generator=generator, dtype=torch.float64)
    h = torch.rand(frames, rank, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(torch.float32).eps
    w, h = (v.clamp_min(tiny).to(like)[None].repeat(sequences, 1, 1) for v in (w, h))
    return NoiseParameters(w, h.mT, like.new_ones(sequences, frames))


class Noise(Observation):
    r"""Speech in noise, y = sqrt(g) s + n.

    Where it `learns`, every run of the model is preceded, at the variance v that the model has just computed, by one
    multiplicative update of each of W, H and g, none of which lowers the likelihood (Févotte & Idier, "Algorithms for
    nonnegative matrix factorization with the beta-divergence", 2011, Sec. 4.2, exponent 1/2):

    .. math:: W \leftarrow W \odot \Big(\frac{(y \odot x^{-2}) H'}{x^{-1} H'}\Big)^{1/2}, \quad
        H \leftarrow H \odot \Big(\frac{W' (y \odot x^{-2})}{W' x^{-1}}\Big)^{1/2}, \quad
        g_t \leftarrow g_t \Big(\frac{\sum_f y v x^{-2}}{\sum_f v x^{-1}}\Big)^{1/2}, \qquad x = g v + WH,

    x computed anew after each; sums run over the draws of z too, and columns of W are scaled to a sum of one. So the
    loop "run, gradient step, run" is an expectation-maximisation whose M-step is this handler.

    Args:
        parameters: W, H and g at the start; those at present are in `parameters`.
        learns: which of ``"w"``, ``"h"``, ``"g"`` are updated in a run.
        floor: added to the noise's variance, so that digital silence has a density.
        shared: whether all sequences of the batch are in one noise: W is then updated for them together.
    """

    def __init__(
        self, parameters: NoiseParameters, learns: str = "", floor: float = 0.0, *, shared: bool = False
    ) -> None:
        super().__init__()
        self.parameters = parameters
        self.learns = learns
        self.floor = floor
        self.shared = shared

    def hear(self, speech: Tensor, y: Tensor, mask: Tensor | None, frames: slice) -> Heard:
        if self.learns:
            self._update(speech.detach(), y, mask, frames)
        noise = self.parameters._replace(h=self.parameters.h[..., frames]).variance() + self.floor
        return Heard([self.parameters.gain()[frames] * speech], noise)

    @torch.no_grad()
    def _update(self, v: Tensor, y: Tensor, mask: Tensor | None, frames: slice) -> None:
        """One update of each of W, H and g, from v (..., T, N, F) and y (T, N, F)."""
        w, whole_h, whole_g = self.parameters
        h, g = whole_h[..., frames], whole_g[..., frames]
        v = v.reshape(-1, *v.shape[-3:])  # draws first
        real = None if mask is None else mask[..., None].to(y)

        def parts() -> tuple[Tensor, Tensor]:
            """1 / x of each draw, 0 in padded frames, and x's sums over draws in numerators, y x^-2, (T, N, F)."""
            x = v * g.t()[..., None] + (h.mT @ w.mT).transpose(0, 1) + self.floor
            inverse = x.reciprocal_()
            inverse = inverse if real is None else inverse * real
            return inverse, y * inverse.square().sum(0)

        if "w" in self.learns:
            inverse, over = parts()
            up, down = (u.permute(1, 2, 0) @ h.mT for u in (over, inverse.sum(0)))
            if self.shared:
                up, down = (u.sum(0, keepdim=True) for u in (up, down))
            w = w * _ratio(up, down)
        if "h" in self.learns:
            inverse, over = parts()
            h = h * _ratio(w.mT @ over.permute(1, 2, 0), w.mT @ inverse.sum(0).permute(1, 2, 0))
        if "w" in self.learns:
            scale = w.sum(1, keepdim=True)
            w, h = w / scale, h * scale.mT
        if "g" in self.learns:
            inverse, _ = parts()
            seen = v * inverse
            up, down = (y * (seen * inverse).sum(0)).sum(-1), seen.sum((0, -1))
            g = g * _ratio(up, down).t()
        if frames != slice(None):
            h, g = (_placed(part, whole, frames) for part, whole in ((h, whole_h), (g, whole_g)))
        self.parameters = NoiseParameters(w, h, g)


def _ratio(up: Tensor, down: Tensor) -> Tensor:
    """(up / down)^(1/2), one where there is nothing to go by: a padded frame."""
    return torch.where(down > 0, up / down, 1.0).sqrt()


def _placed(part: Tensor, whole: Tensor, frames: slice) -> Tensor:
    whole = whole.clone()
    whole[..., frames] = part
    return whole
