r"""Speech of which a part is missing: frames of lost packets, bins above a cut-off.

What was not observed is left out of the density (`inference.observation.base.Heard`): the bound is that of the data
that are there. The guide reads whole frames, so what it reads there is filled in: first by interpolation of the log
spectra over time, zeros being extreme log-powers, then by the predictive variance
:math:`E[v_{ft}(z) \mid y]`, again and again.
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
    """Which bins of a centred transform were observed, bool (T, F).

    A frame is missing where its window touches a gap at all: frame t has the samples from t * hop - window / 2 up to
    t * hop + window / 2. A bin is missing where its main lobe, two bins wide to either side, reaches above the cut-off.

    Args:
        frames: T.
        window: samples of a frame.
        hop: samples from one frame to the next.
        rate: in Hz.
        gaps: seconds from and to.
        above: cut-off in Hz; None: none.

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
    """Missing bins by straight lines between the log powers before and after in the same bin, y (T, F).

    At either end of a recording the nearest frame is taken; a bin that is missing throughout has the lowest power that
    was observed in any.

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
    """What was observed, and the predictive variance where nothing was."""
    return torch.where(present, y, predictive)
