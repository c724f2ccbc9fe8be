r"""WaveNets: causal, dilated, gated, strided convolutions (van den Oord et al., 2016; Andersson et al., 2021).

A block is, with :math:`[u; v]` the two halves of a convolution's channels and W a linear map without bias,

.. math:: x + W\,(\tanh v \odot \sigma(u)), \qquad [u; v] = R\,\mathrm{Conv}([x; c]),

R an optional change of rate, c a condition. Tensors have the shapes of `models.core.time_axis`: (..., T, N, C). The
input of a network is all frames at once, or some frames and the state after the earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from models.core.tensors import concatenate

__all__ = ["CausalConv", "Downsample", "OverTime", "Upsample", "WaveNet", "WaveNetBlock", "to_multiple"]

State = tuple[Tensor, ...]


def to_multiple(u: Tensor, stride: int) -> Tensor:
    """u (..., T, N, C) with zero frames after its end, up to a multiple of `stride`."""
    return pad(u, (0, 0, 0, 0, 0, -u.shape[-3] % stride))


class CausalConv(nn.Module):
    """A causal convolution over time: output t depends on inputs t, t - dilation, ..., zero before the first frame.

    Args:
        in_dim: channels of the input.
        out_dim: channels of the output.
        kernel: number of taps.
        dilation: frames from one tap to the next.
        maps: number of convolutions of the same input that it contains, their output channels concatenated.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 1, dilation: int = 1, maps: int = 1) -> None:
        super().__init__()
        reference = nn.Conv1d(in_dim, out_dim, kernel)  # for torch's initialisation
        assert reference.bias is not None
        self.weight = nn.Parameter(reference.weight.detach().movedim(2, 1).reshape(out_dim, kernel * in_dim))
        self.bias = nn.Parameter(reference.bias.detach())
        self.kernel, self.dilation, self.maps = kernel, dilation, maps

    def forward(self, u: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From u (..., T, N, in) and the earlier inputs that the taps reach: (..., T, N, out) and the last inputs."""
        reach = (self.kernel - 1) * self.dilation
        if reach == 0:
            return linear(u, self.weight, self.bias), u[..., :0, :, :]
        past = u.new_zeros(*u.shape[:-3], reach, *u.shape[-2:]) if before is None else before
        padded = torch.cat([past.expand(*u.shape[:-3], *past.shape[-3:]), u], dim=-3)
        frames = u.shape[-3]
        taps = [padded[..., k * self.dilation : k * self.dilation + frames, :, :] for k in range(self.kernel)]
        return linear(torch.cat(taps, dim=-1), self.weight, self.bias), padded[..., frames:, :, :]


class Downsample(nn.Module):
    r"""Downsampling: the weighted sum of every `stride` frames, per channel.

    Args:
        stride: input frames per output frame.
        channels: with a number of channels the weights of each frame and channel are learned (a strided depthwise
            convolution), initially :math:`1/\sqrt{s}`; None keeps `weight`.
        weight: the fixed weight of every frame if `channels` is None.
    """

    def __init__(self, stride: int, channels: int | None = None, weight: float = 1.0) -> None:
        super().__init__()
        self.stride = stride
        self.fixed = weight
        self.weight = None if channels is None else nn.Parameter(torch.full((stride, 1, channels), stride**-0.5))

    def forward(self, u: Tensor) -> Tensor:
        """From u (..., T, N, C), T a multiple of the stride, to (..., T / stride, N, C)."""
        parts = u.unflatten(-3, (-1, self.stride))
        weighted: Tensor = parts * (self.fixed if self.weight is None else self.weight)
        return weighted.sum(-3)


class Upsample(nn.Module):
    """Upsampling: every frame repeated `stride` times, optionally with learned weights.

    Args:
        stride: output frames per input frame.
        channels: with a number of channels a weight for each frame and channel is learned (a strided transposed
            depthwise convolution), initially 1; None repeats the frames.
    """

    def __init__(self, stride: int, channels: int | None = None) -> None:
        super().__init__()
        self.stride = stride
        self.weight = None if channels is None else nn.Parameter(torch.ones(stride, 1, channels))

    def forward(self, u: Tensor) -> Tensor:
        """From u (..., T, N, C) to (..., stride * T, N, C)."""
        if self.weight is None:
            return u.repeat_interleave(self.stride, dim=-3)
        return (u.unsqueeze(-3) * self.weight).flatten(-4, -3)


class WaveNetBlock(nn.Module):
    r"""One gated block with a residual path and an identity path.

    Args:
        in_dim: channels of x.
        width: channels of the output.
        condition: channels of c.
        kernel: number of taps of the convolution.
        dilation: frames between taps.
        down: stride of downsampling; `up`: of upsampling. At most one of them is above 1.
        learned: whether the change of rate is learned in the residual path, with the mean over frames in the identity
            path (the paper); else both paths take the sum divided by :math:`\sqrt{s}` (the public code).
    """

    def __init__(
        self,
        in_dim: int,
        width: int,
        *,
        condition: int = 0,
        kernel: int = 1,
        dilation: int = 1,
        down: int = 1,
        up: int = 1,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.conv = CausalConv(in_dim + condition, 2 * width, kernel, dilation, maps=2)
        self.mix = nn.Linear(width, width, bias=False)
        self.identity = nn.Linear(in_dim, width) if in_dim != width else nn.Identity()
        self.rate_residual: nn.Module = nn.Identity()
        self.rate_identity: nn.Module = nn.Identity()
        if down > 1:
            self.rate_residual = Downsample(down, 2 * width if learned else None, down**-0.5)
            self.rate_identity = Downsample(down, None, 1.0 / down if learned else down**-0.5)
        elif up > 1:
            self.rate_residual = Upsample(up, 2 * width if learned else None)
            self.rate_identity = Upsample(up)

    def forward(self, x: Tensor, c: Tensor | None = None, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From x (..., T, N, in) and c (..., T, N, condition): (..., T', N, width), and the last inputs."""
        out, after = self.conv(x if c is None else concatenate(x, c), before)
        gate, value = self.rate_residual(out).chunk(2, dim=-1)
        residual = self.mix(torch.tanh(value) * torch.sigmoid(gate))
        return residual + self.rate_identity(self.identity(x)), after


class WaveNet(nn.Module):
    """A sequence of blocks, all with the same condition; the first one downsamples, or the last one upsamples.

    Args:
        in_dim: channels of the input.
        width: channels of every block.
        dilations: dilation of each block.
        kernel: number of taps of each convolution.
        condition: channels of the condition.
        down: stride of downsampling in the first block.
        up: stride of upsampling in the last block.
        learned: see `WaveNetBlock`.
    """

    def __init__(
        self,
        in_dim: int,
        width: int,
        dilations: Sequence[int],
        *,
        kernel: int = 1,
        condition: int = 0,
        down: int = 1,
        up: int = 1,
        learned: bool = True,
    ) -> None:
        super().__init__()
        last = len(dilations) - 1
        self.blocks = nn.ModuleList(
            WaveNetBlock(
                width if i else in_dim,
                width,
                condition=condition,
                kernel=kernel,
                dilation=dilation,
                down=1 if i else down,
                up=up if i == last else 1,
                learned=learned,
            )
            for i, dilation in enumerate(dilations)
        )
        self.out_dim = width

    def forward(self, x: Tensor, c: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Outputs (..., T', N, width) and the state, for all frames, or for some and the state after earlier ones."""
        after = []
        for i, block in enumerate(self.blocks):
            x, last = block(x, c, None if state is None else state[i])
            after.append(last)
        return x, tuple(after)


class OverTime(nn.Module):
    """A WaveNet as a `models.core.carry.Causal` network: in its state, the sequence dimension comes before the frames.

    Args:
        net: the WaveNet.
        down: its change of rate; these many frames are concatenated in each frame of the input.
    """

    def __init__(self, net: WaveNet, down: int = 1) -> None:
        super().__init__()
        self.net, self.down = net, down
        self.out_dim = net.out_dim

    def forward(self, u: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """From u (..., T, N, down * in) to (..., T, N, out), and each block's last inputs, (..., N, frames, in)."""
        if self.down > 1:
            u = u.unflatten(-1, (self.down, -1)).transpose(-3, -2).flatten(-4, -3)
        before = None if state is None else tuple(part.transpose(-3, -2) for part in state)
        out, after = self.net(u, None, before)
        return out, tuple(part.transpose(-3, -2) for part in after)
