"""What the networks see of the data: the power itself, as published, or its standardised logarithm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from inference.errors import UserError, nearest

__all__ = ["InputTransform"]

LOG_FLOOR = 1e-8
"""Power below which the logarithm is flat: about the rounding noise of 16-bit audio in a 512-sample
window.
"""


class InputTransform(nn.Module):
    """Data (..., D) to network input (..., D).

    ``"power"`` is the identity, as in the papers: powers of 1e-9 to 1e4 enter the first layer. ``"log"``
    takes log(x + floor), less its mean and over its standard deviation in each bin, both measured once on the
    training data by `fit` and kept with the weights.

    Args:
        kind: ``"power"`` or ``"log"``.
        dim: size D of the data.

    Raises:
        UserError: for another kind.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        kinds = ("log", "power")
        if kind not in kinds:
            raise UserError(f"unknown model.input '{kind}'.{nearest(kind, kinds)} Known: {', '.join(kinds)}.")
        self.kind = kind
        self.out_dim = dim
        if kind == "log":
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("scale", torch.ones(dim))

    def fit(self, sequences: Iterable[Tensor]) -> None:
        """Measure mean and standard deviation of the log-power over all frames of the sequences, each (T, D)."""
        if self.kind != "log":
            return
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for x in sequences:
            y = torch.log(x.double().cpu() + LOG_FLOOR)
            count, total, squares = count + len(y), total + y.sum(0), squares + y.square().sum(0)
        mean = total / max(count, 1)
        deviation = (squares / max(count, 1) - mean.square()).clamp_min(0.0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(deviation.clamp_min(1e-3))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.kind == "power" else (torch.log(x + LOG_FLOOR) - self.mean) / self.scale
