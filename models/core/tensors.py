"""Functions of tensors (..., T, N, D) that steps, networks and likelihoods share."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, device
from torch.nn.functional import pad

from models.core.effects import ragged
from models.core.gaussian import DiagonalNormal
from models.core.reuse import pure

__all__ = ["concatenate", "normal", "real_frames", "reverse", "shift", "to_float32", "zero_padding"]


def concatenate(*parts: Tensor) -> Tensor:
    """Concatenate features along the last dimension, [a; b], with broadcasting of particle and frame dimensions."""
    if len(parts) == 1:
        return parts[0]
    shapes = [part.shape[:-1] for part in parts]
    if all(shape == shapes[0] for shape in shapes[1:]):  # broadcasting shapes takes longer than a frame's concatenation
        return torch.cat(parts, dim=-1)
    batch = torch.broadcast_shapes(*shapes)
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], dim=-1)


def to_float32(v: Tensor) -> Tensor:
    """v in single precision if autocast computed it in half precision; densities are computed in single precision."""
    return v.float() if v.dtype in (torch.bfloat16, torch.float16) else v


def normal(mean: Tensor, log_variance: Tensor) -> dist.TorchDistribution:
    """A diagonal Gaussian over the last dimension, from its mean and log-variance."""
    return DiagonalNormal(to_float32(mean), to_float32(log_variance))


def reverse(u: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence of u (T, N, D) within its length; padded frames stay in place.

    Example:
        >>> u = torch.tensor([1.0, 2.0, 0.0]).reshape(3, 1, 1)
        >>> reverse(u, torch.tensor([2])).flatten().tolist()
        [2.0, 1.0, 0.0]
    """
    frames = u.shape[0]
    if not ragged(lengths, frames):
        return u.flip(0)
    t = torch.arange(frames, device=lengths.device)[:, None]
    index = torch.where(t < lengths, lengths - 1 - t, t).to(u.device)
    return u.gather(0, index[..., None].expand_as(u))


@pure
def shift(u: Tensor) -> Tensor:
    """The frame before each: u_{t-1} of u (..., T, N, D), zero before the first."""
    return pad(u[..., :-1, :, :], (0, 0, 0, 0, 1, 0))


@pure
def real_frames(lengths: Tensor, frames: int, on: device) -> Tensor | None:
    """The mask of frames within each sequence's length, (T, N); None if all are."""
    mask = torch.arange(frames, device=lengths.device)[:, None] < lengths
    return mask.to(on) if ragged(lengths, frames) else None


@pure
def zero_padding(u: Tensor, mask: Tensor) -> Tensor:
    """u (..., T, N, C) with zeros where the mask (T, N) is not set."""
    return u.masked_fill(~mask[..., None], 0.0)
