r"""Reverberant speech: a convolution over frames in each band, and noise.

.. math:: y_{ft} = \sum_{p=0}^{P-1} h_{fp}\, s_{f,t-p} + n_{ft}, \qquad
    s_{ft} \mid z \sim N_c(0, g_t v_{ft}(z)), \qquad n_{ft} \sim N_c(0, n_f), \qquad h_{f0} = 1

(the convolutive transfer function of Avargel & Cohen, "System identification in the short-time Fourier transform domain
with crossband filtering", 2007; with a DVAE as prior: Wang, Fang & Li, "RVAE-EM: generative speech dereverberation
based on recurrent variational auto-encoder and convolutive transfer function", 2024). Speech s is an explicit latent:
given z, h and n its posterior in a band is Gaussian with a banded precision,

.. math:: q(s_f) = N_c(m_f, \Sigma_f), \qquad \Sigma_f^{-1} = \mathrm{diag}(1 / g v_f) + H_f^H H_f / n_f, \qquad
    m_f = \Sigma_f H_f^H y_f / n_f,

where H_f is the matrix of the convolution. With this q the bound :math:`E_q[\log p(y \mid s) + \log p(s \mid z)] -
E_q[\log q]` is log p(y | z), and by the envelope theorem its gradient with respect to v is that of
:math:`E_q[\log p(s \mid z)] = -\sum_t \log v_t + E_q|s_t|^2 / v_t` with q fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from inference.observation.banded import BandedGaussian, solve_banded
from inference.observation.base import ObservedPower, Shape
from inference.observation.noise import Noise, NoiseParameters

__all__ = ["Reverb", "Reverberant", "SpeechPosterior", "initial_reverb"]

AT_ONCE = 1 << 19
"""Entries of the band of the precisions that are solved together."""
RIDGE = 1e-6
"""Ridge of the least squares for h, relative to the power of speech."""
QUIET = 0.1
"""Initial power of the noise, relative to the mean power of the recording in each bin."""


class SpeechPosterior(NamedTuple):
    """q(s) of R rows, bands of sequences, given z: T frames, P taps.

    Attributes:
        y: the observed transform, complex, zero in padded frames, (R, T).
        weights: 1 / n, 0 in padded frames, (R, T).
        taps: h, complex, (R, P).
        gaussian: q.
    """

    y: Tensor
    weights: Tensor
    taps: Tensor
    gaussian: BandedGaussian

    @classmethod
    def of(cls, y: Tensor, u: Tensor, weights: Tensor, taps: Tensor) -> SpeechPosterior:
        """q(s) from the variance u = g v of speech, (R, T)."""
        width = taps.shape[-1]
        precision = _ahead(weights, width).to(taps) @ _products(taps)
        precision[..., 0] += 1.0 / u
        right = (_ahead(weights * y, width) @ taps.conj()[..., None])[..., 0]
        return cls(y, weights, taps, solve_banded(precision, right))

    @property
    def power(self) -> Tensor:
        """E|s|^2, (R, T)."""
        return self.gaussian.mean.abs().square() + self.gaussian.covariance[..., 0].real

    def log_density(self, u: Tensor) -> Tensor:
        """Terms of log p(y | z) by frame, up to a constant of log pi, (R, T): exponents at the mean, log pivots."""
        error = (self.y - (_behind(self.gaussian.mean, self.taps.shape[-1]) @ self.taps[..., None])[..., 0]).abs()
        exponent = self.weights * error.square() + self.gaussian.mean.abs().square() / u
        noise = torch.where(self.weights > 0, self.weights, 1.0)
        return noise.log() - u.log() - self.gaussian.log_pivots - exponent

    def equations(self) -> tuple[Tensor, Tensor]:
        """A (R, P, P) and b (R, P) of the least squares for h: E sum_t |y - h * s|^2 / n is minimal where A h = b."""
        mean, covariance, _ = self.gaussian
        width = covariance.shape[-1]
        moments = covariance + mean[..., None] * _behind(mean, width).conj()  # E s_i s_{i-d}^*
        summed = _ahead(self.weights, width).to(moments).mT @ moments  # [q, d] is entry (q + d, q) of A
        p = torch.arange(width, device=mean.device)
        lower = summed[:, p, (p[:, None] - p).clamp_min(0)].tril()
        linear = (_ahead(self.weights * self.y, width).mT @ mean.conj()[..., None])[..., 0]
        return lower + lower.tril(-1).mH, linear

    def residual(self, taps: Tensor) -> Tensor:
        """E|y - h * s|^2 for taps h, (R, T)."""
        mean, covariance, _ = self.gaussian
        width = taps.shape[-1]
        error = self.y - (_behind(mean, width) @ taps[..., None])[..., 0]
        twice = 2.0 - (torch.arange(width, device=taps.device) == 0).to(taps.real)
        spread = (covariance * twice @ _products(taps).conj().mT).real  # [i, q]: what s_i adds to frame i + q
        late = torch.stack([pad(spread[..., q], (q, 0))[:, : mean.shape[-1]] for q in range(width)]).sum(0)
        return (error.abs().square() + late).clamp_min(0.0)


def _ahead(values: Tensor, width: int) -> Tensor:
    """Values of frames t, ..., t + P - 1, zero beyond the end: (R, T) to (R, T, P)."""
    return pad(values, (0, width - 1)).unfold(-1, width, 1)


def _behind(values: Tensor, width: int) -> Tensor:
    """Values of frames t, ..., t - P + 1, zero before the start: (R, T) to (R, T, P)."""
    return pad(values, (width - 1, 0)).unfold(-1, width, 1).flip(-1)


def _products(taps: Tensor) -> Tensor:
    """h_p^* h_{p+d} in [:, p, d], zero beyond the last tap: (R, P) to (R, P, P)."""
    return taps.conj()[..., None] * _ahead(taps, taps.shape[-1])


class Reverberant(ObservedPower):
    r"""The density of reverberant speech given z.

    Its terms by frame are not conditionals of y_t; only their sum over frames is a log-density.

    Args:
        signal: u = g v, (..., T, N, F).
        noise: n, (T, N, F).
        mean: m, the posterior mean of s, complex, (..., T, N, F).
        power: E|s|^2, (..., T, N, F).
        log_density: terms of log p(y | z) by frame and bin, (..., T, N, F).
        y: the observed transform, complex, (T, N, F).
    """

    def __init__(
        self, signal: Tensor, noise: Tensor, mean: Tensor, power: Tensor, log_density: Tensor, y: Tensor
    ) -> None:
        super().__init__([signal], noise, validate_args=False)
        self.speech, self.power, self.log_density, self.y = mean, power, log_density, y

    def wiener(self, source: int = 0) -> Tensor:
        """The complex gain m / y, by which y becomes the posterior mean of s; 0 where y is 0, (..., T, N, F)."""
        silent = self.y == 0
        return (self.speech / torch.where(silent, 1.0, self.y)).masked_fill(silent, 0.0)

    def expand(self, batch_shape: Shape, _instance: object = None) -> Reverberant:
        if tuple(batch_shape) != tuple(self.batch_shape):
            raise NotImplementedError(f"the density of an observed transform has shape {tuple(self.batch_shape)}")
        return self

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        raise NotImplementedError("the density of reverberant speech is only scored")

    def log_prob(self, value: Tensor) -> Tensor:
        u = self.signals[0]
        of_speech = -(u.log() + self.power / u).sum(-1)  # its gradient is that of log p(y | z)
        return self.log_density.sum(-1) + of_speech - of_speech.detach()


def initial_reverb(y: Tensor, lengths: Tensor, taps: int) -> tuple[NoiseParameters, Tensor]:
    """Initial noise, a tenth of the mean power in each bin, with g = 1; and initial taps h, without reverberation.

    Args:
        y: the observed power (T, N, F).
        lengths: frames of each sequence (N,).
        taps: P.
    """
    frames, sequences, bins = y.shape
    power = QUIET * y.sum(0) / lengths.to(y)[:, None]
    h = torch.zeros(sequences, bins, taps, dtype=torch.complex128, device=y.device)
    h[..., 0] = 1.0
    ones = y.new_ones(sequences, 1, frames)
    return NoiseParameters(power[..., None], ones, ones.clone()), h


class Reverb(Noise):
    r"""Reverberant speech in stationary noise.

    If it `learns`, each run takes an M-step at its own q(s) after the density is computed: h by least squares, then n,
    then g; no step decreases log p(y | z),

    .. math:: h_f \leftarrow \arg\min_h E_q \sum_t |y_t - (h * s)_t|^2, \quad
        n_f \leftarrow \frac1T \sum_t E_q |y_t - (h * s)_t|^2, \quad
        g_t \leftarrow \frac1F \sum_f E_q|s_{ft}|^2 / v_{ft}.

    Args:
        spectrum: the observed transform y, complex, (T, N, F), zero in padded frames.
        parameters: initial noise n as W, with K = 1 and H = 1; and g.
        taps: initial h (N, F, P), complex, h[..., 0] = 1; the attribute has the current h.
        learns: which of ``"h"``, ``"n"``, ``"g"`` are updated in a run.
        floor: added to the noise variance.
    """

    framewise = False

    def __init__(
        self, spectrum: Tensor, parameters: NoiseParameters, taps: Tensor, learns: str = "", floor: float = 0.0
    ) -> None:
        super().__init__(parameters, learns, floor)
        self.spectrum = spectrum
        self.taps = taps

    def likelihood(self, sources: Sequence[Tensor], y: Tensor, mask: Tensor | None, frames: slice) -> Reverberant:
        if frames != slice(None) or len(sources) > 1:
            raise NotImplementedError("reverberation couples the frames of one source: it has no frame-by-frame form")
        here, v = self.parameters, sources[0]
        u = here.gains()[0] * v
        found, parameters, taps = self._solve(v.detach(), u.detach(), mask)
        if self.learns:
            self.parameters, self.taps = parameters, taps
        mean, power, density = (part.to(v.dtype if part.is_floating_point() else self.spectrum.dtype) for part in found)
        return Reverberant(u, here.variance() + self.floor, mean, power, density, self.spectrum)

    @torch.no_grad()
    def _solve(
        self, v: Tensor, u: Tensor, mask: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], NoiseParameters, Tensor]:
        """Mean and power of s and terms of log p(y | z), each (..., T, N, F); and updated parameters and taps."""
        frames, sequences, bins = self.spectrum.shape
        real = torch.ones_like(self.spectrum.real)
        if mask is not None:  # the same for all draws
            real = real * mask.reshape(-1, frames, sequences)[0, ..., None]
        y, real_rows = _rows(self.spectrum.to(torch.complex128)), _rows(real).double()
        tiny = torch.finfo(v.dtype).tiny
        variance = _rows(torch.where(real > 0, u, 1.0).clamp_min(tiny).reshape(-1, *u.shape[-3:])).double()
        noise, taps = self.parameters.w[..., 0].double().flatten(), self.taps.flatten(0, 1)
        draws, width = len(variance), taps.shape[-1]
        chunk = max(1, AT_ONCE // (draws * frames * width))
        parts = list[tuple[Tensor, ...]]()
        for rows in torch.arange(len(y), device=y.device).split(chunk):
            floored, counts = (noise[rows] + self.floor).clamp_min(tiny), real_rows[rows]
            of = (t.repeat(draws, *[1] * (t.dim() - 1)) for t in (y[rows], counts / floored[:, None], taps[rows]))
            observed, weights, h = of
            here = variance[:, rows].flatten(0, 1)
            q = SpeechPosterior.of(observed, here, weights, h)
            h = h if "h" not in self.learns else _fitted(q, draws)
            left = noise[rows]
            if "n" in self.learns:
                error = (q.residual(h).view(draws, *counts.shape) * counts).sum((0, 2)) / (draws * counts.sum(1))
                left = (error - self.floor).clamp_min(0.0)
            shaped = (t.view(draws, len(rows), -1) for t in (q.gaussian.mean, q.power, q.log_density(here)))
            parts.append((*shaped, h[: len(rows)][None], left[None, :, None]))
        mean, power, density, h, left = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        shape = (*v.shape[:-3], sequences, bins, frames)
        mean, power, density = (t.view(shape).permute(*range(v.dim() - 3), -1, -3, -2) for t in (mean, power, density))
        w, ones, g = self.parameters
        if "g" in self.learns:
            ratio = (power / v.clamp_min(tiny)).reshape(-1, *v.shape[-3:]).mean((0, -1))
            g = torch.where(real[..., 0] > 0, ratio, 1.0).t()[:, None].to(g)
        updated = NoiseParameters(left.view(sequences, bins, 1).to(w), ones, g)
        return (mean, power, density), updated, h.view(sequences, bins, width)


def _fitted(q: SpeechPosterior, draws: int) -> Tensor:
    """h of the least squares over all draws, with h_0 = 1, (draws R, P)."""
    matrix, linear = (t.view(draws, -1, *t.shape[1:]).sum(0) for t in q.equations())
    taps = torch.zeros_like(linear)
    taps[:, 0] = 1.0
    if taps.shape[-1] > 1:
        scale = matrix.diagonal(dim1=-2, dim2=-1).real.mean(-1).clamp_min(torch.finfo(torch.float64).tiny)
        ridge = RIDGE * scale[:, None, None] * torch.eye(matrix.shape[-1] - 1, device=matrix.device)
        taps[:, 1:] = torch.linalg.solve(matrix[:, 1:, 1:] + ridge, linear[:, 1:] - matrix[:, 1:, 0])
    return taps.repeat(draws, 1)


def _rows(values: Tensor) -> Tensor:
    """(..., T, N, F) to (..., N F, T)."""
    return values.movedim(-3, -1).flatten(-3, -2)
