"""Transforms of the data before the networks: identity, logarithm, standardisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvae_pyro.errors import UserError, nearest
from models.core.reuse import pure

__all__ = ["InputTransform"]

LOG_FLOOR = 1e-8
"""Constant added to the power before the logarithm: about the quantisation noise of 16-bit audio in a window of 512
samples.
"""

LEAST_DEVIATION = 1e-3
"""Bins with a smaller standard deviation (absolute for logarithms, else relative to the mean) are not divided by it."""


class Kind(NamedTuple):
    """Whether a transform takes the logarithm, standardises, and pools mean and deviation over all values."""

    takes_log: bool = False
    standardises: bool = False
    pooled: bool = False


KINDS = {
    "log": Kind(takes_log=True, standardises=True),
    "unscaled_log": Kind(takes_log=True),
    "standard": Kind(standardises=True),
    "global": Kind(standardises=True, pooled=True),
    "raw": Kind(),
}


class InputTransform(nn.Module):
    """Data (..., D) to network input (..., D).

    ``"raw"`` is the identity, as in the papers: powers of 1e-9 to 1e4 enter the first layer. ``"unscaled_log"`` is
    log(x + floor). ``"standard"`` and ``"log"`` standardise x and log(x + floor) per bin: mean and standard deviation
    are measured on the training data by `fit` and saved with the weights. ``"global"`` standardises x by the mean and
    deviation of all values together, for frames of a waveform.

    Args:
        kind: a key of `KINDS`.
        dim: size D of the data.
        bits: number of the last values that are binary and not standardised.

    Raises:
        UserError: for an unknown kind.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, kind: str, dim: int, bits: int = 0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"unknown model.input '{kind}'.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}.")
        self.kind = kind
        self.takes_log, self.standardises, self.pooled = KINDS[kind]
        self.out_dim = dim
        self.scaled = dim - bits
        if self.standardises:
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("scale", torch.ones(dim))

    def fit(self, sequences: Iterable[Tensor]) -> None:
        """Measure mean and standard deviation over all frames of the sequences, each (T, D).

        Raises:
            UserError: for negative values, where the logarithm is taken.
        """
        if self.kind == "raw":
            return
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for x in sequences:
            if self.takes_log and bool((x < 0).any()):
                raise UserError(
                    f"model.input={self.kind} takes the logarithm of power, but the data have values down to "
                    f"{float(x.min()):g}. Set model.input=standard, or raw for data that are normalised already."
                )
            y = self._logarithm(x.double().cpu())
            count, total, squares = count + len(y), total + y.sum(0), squares + y.square().sum(0)
        if self.standardises:
            mean, second = total / max(count, 1), squares / max(count, 1)
            if self.pooled:
                mean, second = (m[: self.scaled].mean().expand(self.out_dim) for m in (mean, second))
            deviation = (second - mean.square()).clamp_min(0.0).sqrt()
            moves = deviation > LEAST_DEVIATION * (1.0 if self.takes_log else mean.abs())
            self.mean[: self.scaled] = mean[: self.scaled]
            self.scale[: self.scaled] = torch.where(moves, deviation, 1.0)[: self.scaled]

    @pure
    def forward(self, x: Tensor) -> Tensor:
        if not self.takes_log or x.requires_grad:
            y = self._logarithm(x)
            return (y - self.mean) / self.scale if self.standardises else y
        y = (x + LOG_FLOOR).log_()  # in place: memory that is new to a process costs more than what is computed
        return y.sub_(self.mean).div_(self.scale) if self.standardises else y

    def inverse(self, y: Tensor) -> Tensor:
        """Data (..., D) from network input (..., D); not for transforms that take the logarithm."""
        return y * self.scale + self.mean if self.standardises else y

    def log_scale(self) -> float:
        """log |dx / dy| of a frame: the log-density of network input y minus that of data x; not for logarithms."""
        return float(self.scale.double().log().sum()) if self.standardises else 0.0

    def _logarithm(self, x: Tensor) -> Tensor:
        return torch.log(x + LOG_FLOOR) if self.takes_log else x
