"""Resampling of particles: ancestors in proportion to weights, and the numbers that they are drawn by."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.handlers.noise import sequence_noise

__all__ = ["SCHEMES", "Uniforms", "looks", "resample"]

SCHEMES = ("systematic", "stratified", "multinomial")


def resample(log_weights: Tensor, scheme: str, uniforms: Tensor) -> Tensor:
    r"""Ancestors in proportion to weights: K of them, (K, N), each k on average K W_k times.

    They are the particles at which the distribution function of W reaches the positions (k - 1 + u) / K with one u
    (``"systematic"``), (k - 1 + u_k) / K (``"stratified"``), or u_k (``"multinomial"``). The first two copy a particle
    less than one time too often or too seldom (systematic), or less than two (stratified), and so add less noise
    (Douc, Cappe & Moulines, "Comparison of resampling schemes for particle filtering", 2005).

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


def looks(device: torch.device) -> bool:
    """Whether to look if anything is to be resampled: on a GPU that takes longer than to resample."""
    return device.type == "cpu"


class Uniforms:
    """Numbers that ancestors are drawn by, those of a sequence one after another from a generator of its own.

    Args:
        count: how many a resampling takes of each sequence.
        frames: T.
        lengths: frames of each sequence (N,), on the CPU.
        noise: has the generators; None: all are drawn from torch's own.
        device: of the particles.
    """

    def __init__(
        self, count: int, frames: int, lengths: Tensor, noise: sequence_noise | None, device: torch.device
    ) -> None:
        self.count, self.frames, self.sequences, self.noise, self.device = count, frames, len(lengths), noise, device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.drawn: Tensor | None = None
        """Those of all resamplings, (T, count, N)."""
        self.used = torch.zeros(len(lengths), dtype=torch.int64, device=device)

    def of(self, few: Tensor) -> Tensor:
        """Numbers (count, N), for the sequences that are resampled, (N,); those of others mean nothing."""
        if self.noise is None:
            if not looks(self.device):
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
