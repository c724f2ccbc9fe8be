"""Missing frames of a KVAE: masks, imputation by the smoother and by interpolation, and errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kvae import KVAE
from models.nn.kalman import smooth

__all__ = ["Filled", "error", "fill", "interpolated", "linear_r2", "masks"]


class Filled(NamedTuple):
    """Sequences with missing frames filled.

    Attributes:
        smoothed: means of x decoded from the smoother's a, (T, N, D).
        interpolated: those decoded from linearly interpolated a.
        states: smoothed means of z, (T, N, L).
    """

    smoothed: Tensor
    interpolated: Tensor
    states: Tensor


def masks(frames: int, sequences: int, missing: float, prefix: int, seed: int) -> dict[str, Tensor]:
    """Masks of observed frames, (T, N) bool, by kind of gap: ``random`` frames, a ``block`` of half of the sequence, or
    all frames after the ``prefix``. The first `prefix` frames are always observed, and except for ``prefix`` the last
    one.
    """
    chance = torch.rand(frames, sequences, generator=torch.Generator().manual_seed(seed))
    t = torch.arange(frames)[:, None]
    ends = (t < prefix) | (t == frames - 1)
    block = (t >= prefix) & (t < min(prefix + frames // 2, frames - 1))
    return {
        "random": (chance >= missing) | ends,
        "block": ~block.expand(-1, sequences),
        "prefix": (t < prefix).expand(-1, sequences),
    }


@torch.no_grad()
def fill(model: KVAE, a: Tensor, present: Tensor) -> Filled:
    """Fill missing frames.

    Args:
        model: the KVAE.
        a: means of the guide's latents a, (T, N, D).
        present: whether each frame is observed, (T, N).
    """
    observed = torch.where(present[..., None], a, 0.0)
    smoothed, moments = smooth(model.dynamics, observed, present)
    linear = torch.stack([interpolated(a[:, n], present[:, n]) for n in range(a.shape[1])], dim=1)
    return Filled(model.decoder(smoothed).mean, model.decoder(linear).mean, moments.mean)


def interpolated(a: Tensor, present: Tensor) -> Tensor:
    """Linear interpolation of a sequence (T, D) between the observed frames; constant after the last one.

    Example:
        >>> a = torch.tensor([[0.0], [9.0], [9.0], [3.0], [9.0]])
        >>> interpolated(a, torch.tensor([True, False, False, True, False])).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 3.0]
    """
    known = np.flatnonzero(present.cpu().numpy())
    values = a.double().cpu().numpy()
    columns = [np.interp(np.arange(len(a)), known, values[known, d]) for d in range(a.shape[1])]
    return torch.from_numpy(np.stack(columns, axis=1)).to(a)


def error(found: Tensor, true: Tensor, missing: Tensor) -> NDArray[np.float64]:
    """Mean squared error of the missing frames of each sequence, (N,); NaN for a sequence without missing frames."""
    squared = (found - true).double().square().mean(-1)
    return ((squared * missing).sum(0) / missing.sum(0)).cpu().numpy()


def linear_r2(states: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """R^2 of a linear map from states to each true value, fitted on the first half of the sequences, on the second
    half.

    Args:
        states: (N, T, L).
        true: (N, T, S).

    Returns:
        (S,).
    """
    half = len(states) // 2
    fit, held = (np.concatenate([s, np.ones((*s.shape[:2], 1))], axis=-1).reshape(-1, s.shape[-1] + 1) for s in
                 (states[:half], states[half:]))  # fmt: skip
    weights = np.linalg.lstsq(fit, true[:half].reshape(-1, true.shape[-1]), rcond=None)[0]
    wanted = true[half:].reshape(-1, true.shape[-1])
    residual = ((wanted - held @ weights) ** 2).sum(0)
    r2: NDArray[np.float64] = 1.0 - residual / ((wanted - wanted.mean(0)) ** 2).sum(0)
    return r2
