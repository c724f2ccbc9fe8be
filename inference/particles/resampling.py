"""Resampling of particles: ancestors in proportion to weights, and the uniform numbers for it."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.handlers.noise import SequenceNoise

__all__ = ["SCHEMES", "Uniforms", "checks_each_frame", "resample"]

SCHEMES = ("systematic", "stratified", "multinomial")


def resample(log_weights: Tensor, scheme: str, uniforms: Tensor) -> Tensor:
    r"""Draw K ancestors in proportion to weights, (K, N): particle k is drawn K W_k times in expectation.

    They are the particles at which the cumulative sum of W reaches the positions (k - 1 + u) / K with one u
    (``"systematic"``), (k - 1 + u_k) / K (``"stratified"``), or u_k (``"multinomial"``). In the first two the number of
    copies differs from K W_k by less than one (systematic) or two (stratified), which adds less variance (Douc, Cappe &
    Moulines, "Comparison of resampling schemes for particle filtering", 2005).

    Args:
        log_weights: log W up to a constant, (K, N).
        scheme: one of `SCHEMES`.
        uniforms: numbers from [0, 1): (1, N) for systematic, else (K, N).

    Example:
        >>> w, u = torch.tensor([[0.5], [0.1], [0.4]]), torch.tensor([[0.2]])
        >>> resample(w.log(), "systematic", u).flatten().tolist()
        [0, 0, 2]
    """
    cumulative = log_weights.to(uniforms.dtype).softmax(0).cumsum(0).t().contiguous()
    cumulative = cumulative / cumulative[:, -1:]
    particles = len(log_weights)
    positions = uniforms
    if scheme != "multinomial":
        positions = (torch.arange(particles, device=uniforms.device)[:, None] + uniforms) / particles
    return torch.searchsorted(cumulative, positions.t().contiguous(), right=True).clamp_max(particles - 1).t()


def checks_each_frame(device: torch.device) -> bool:
    """Whether to check if a sequence needs resampling: on a GPU the synchronisation takes longer than resampling."""
    return device.type == "cpu"


class Uniforms:
    """Uniform numbers for resampling, those of each sequence from its own generator.

    Args:
        count: numbers per resampling and sequence.
        frames: T.
        lengths: frames of each sequence (N,), on the CPU.
        noise: provides the generators; None: numbers are drawn from torch's generator.
        device: the device of the particles.
    """

    def __init__(
        self, count: int, frames: int, lengths: Tensor, noise: SequenceNoise | None, device: torch.device
    ) -> None:
        self.count, self.frames, self.sequences, self.noise, self.device = count, frames, len(lengths), noise, device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.drawn: Tensor | None = None
        """The numbers of all resamplings, (T, count, N)."""
        self.used = torch.zeros(len(lengths), dtype=torch.int64, device=device)

    def of(self, few: Tensor) -> Tensor:
        """Numbers (count, N); only those of the sequences in `few`, bool (N,), are used."""
        if self.noise is None:
            if not checks_each_frame(self.device):
                return torch.rand(self.count, self.sequences, dtype=self.dtype, device=self.device)
            uniforms = torch.zeros(self.count, self.sequences, dtype=self.dtype)
            uniforms[:, few] = torch.rand(self.count, int(few.sum()), dtype=self.dtype)
            return uniforms
        if self.drawn is None:
            shape = (self.frames, self.count)
            each = [torch.rand(shape, generator=g, dtype=self.dtype) for g in self.noise.generators("ancestors")]
            self.drawn = torch.stack(each, dim=-1).to(self.device)
        uniforms = self.drawn.take_along_dim(self.used[None, None], 0)[0]
        self.used = self.used + few
        return uniforms
