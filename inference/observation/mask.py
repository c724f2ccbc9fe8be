r"""Speech with missing parts: frames of lost packets, bins above a cut-off frequency.

Missing bins are excluded from the density (`inference.observation.base.ObservedPower`), so the bound is that of the
observed data. The guide needs complete frames, so its input is filled in: first by interpolation of the log spectra
over time (zeros would be extreme log-powers), then, repeatedly, by the predictive variance :math:`E[v_{ft}(z) \mid y]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["filled", "interpolated", "present_bins"]


def present_bins(
    frames: int,
    window: int,
    hop: int,
    rate: int,
    *,
    gaps: Sequence[tuple[float, float]] = (),
    above: float | None = None,
) -> Tensor:
    """The observed bins of a centred transform, bool (T, F).

    A frame is missing if its window overlaps a gap: frame t covers the samples from t * hop - window / 2 to
    t * hop + window / 2. A bin is missing if its main lobe, two bins wide on each side, exceeds the cut-off.

    Args:
        frames: T.
        window: samples of a frame.
        hop: samples from one frame to the next.
        rate: sampling rate in Hz.
        gaps: start and end of each gap in seconds.
        above: cut-off frequency in Hz; None: no cut-off.

    Example:
        >>> present_bins(6, 4, 2, 2, gaps=[(2.0, 3.0)])[:, 0].tolist()  # samples 4 and 5
        [True, True, False, False, True, True]
    """
    first = torch.arange(frames) * hop - window // 2
    present = torch.ones(frames, window // 2 + 1, dtype=torch.bool)
    for start, end in gaps:
        touched = (first < round(end * rate)) & (first + window > round(start * rate))
        present[touched] = False
    if above is not None:
        present[:, (torch.arange(window // 2 + 1) + 2) * rate / window > above] = False
    return present


def interpolated(y: Tensor, present: Tensor, floor: float = 1e-10) -> Tensor:
    """Linear interpolation over time of the log powers of missing bins, y (T, F).

    At both ends of a recording the nearest observed frame is used; a bin that is never observed gets the lowest
    observed power of all bins.

    Example:
        >>> y = torch.tensor([[1.0], [9.0], [100.0]])
        >>> interpolated(y, torch.tensor([[True], [False], [True]])).flatten().round().tolist()
        [1.0, 10.0, 100.0]
    """
    logs, t = y.clamp_min(floor).log(), torch.arange(len(y), device=y.device)[:, None]
    before = torch.where(present, t, -1).cummax(0).values
    after = torch.where(present, t, len(y)).flip(0).cummin(0).values.flip(0)
    has_before, has_after = before >= 0, after < len(y)
    left = logs.gather(0, before.clamp_min(0))
    right = logs.gather(0, after.clamp_max(len(y) - 1))
    share = (t - before) / (after - before).clamp_min(1)
    nearest = torch.where(has_before, left, right)
    line = torch.where(has_before & has_after, torch.lerp(left, right, share.to(y)), nearest)
    lowest = logs[present].min() if bool(present.any()) else logs.new_tensor(floor).log()
    return torch.where(present, y, torch.where(has_before | has_after, line, lowest).exp())


def filled(y: Tensor, present: Tensor, predictive: Tensor) -> Tensor:
    """The observed power, with the predictive variance in missing bins."""
    return torch.where(present, y, predictive)
